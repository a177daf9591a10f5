/** Python, for both sides: hashes what libcrypto's digests, ciphers and MACs make of fixed inputs; a line each. */
export const OPENSSL_SCRIPT = `
import ctypes, hashlib
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p, create_string_buffer

lib = ctypes.CDLL("libcrypto.so.3")
def bind(name, result, *arguments):
    f = getattr(lib, name)
    f.restype, f.argtypes = result, arguments
    return f
P, I, Z, S = c_void_p, c_int, c_size_t, c_char_p
load = bind("OSSL_PROVIDER_load", P, P, S)
load(None, b"default")
load(None, b"legacy")
VISIT = ctypes.CFUNCTYPE(None, P, P)

def every(kind):
    names = []
    name_of = bind(f"EVP_{kind}_get0_name", S, P)
    visit = VISIT(lambda algorithm, _: names.append(name_of(algorithm)))
    bind(f"EVP_{kind}_do_all_provided", None, P, VISIT, P)(None, visit, None)
    return sorted(set(names))

def pattern(n, start=1):
    x, out = start, bytearray()
    while len(out) < n:
        x = (x * 1103515245 + 12345) & 0x7fffffff
        out.append(x >> 16 & 255)
    return bytes(out)

TEXTS = [pattern(n) for n in (0, 1, 15, 16, 64, 1000, 65536 + 16)]
def show(*what):
    print(*[w.decode() if isinstance(w, bytes) else w for w in what], flush=True)

fetch = bind("EVP_MD_fetch", P, P, S, S)
new, free = bind("EVP_MD_CTX_new", P), bind("EVP_MD_CTX_free", None, P)
init, update = bind("EVP_DigestInit_ex", I, P, P, P), bind("EVP_DigestUpdate", I, P, S, Z)
final, size = bind("EVP_DigestFinal_ex", I, P, P, P), bind("EVP_MD_get_size", I, P)
final_xof = bind("EVP_DigestFinalXOF", I, P, P, Z)
for name in every("MD"):
    md = fetch(None, name, None)
    total = hashlib.sha256()
    for text in TEXTS:
        context = new()
        ok = init(context, md, None) == 1
        for at in range(0, len(text), 777):
            ok = ok and update(context, text[at:at + 777], len(text[at:at + 777])) == 1
        n = max(size(md), 32)
        out = create_string_buffer(n + 64)
        done = final_xof(context, out, n) if size(md) <= 0 or name.startswith(b"SHAKE") else final(context, out, None)
        total.update(out.raw if ok and done == 1 else b"none")
        free(context)
    show("digest", name, total.hexdigest())

fetch = bind("EVP_CIPHER_fetch", P, P, S, S)
new, free = bind("EVP_CIPHER_CTX_new", P), bind("EVP_CIPHER_CTX_free", None, P)
init, update = bind("EVP_CipherInit_ex", I, P, P, P, S, S, I), bind("EVP_CipherUpdate", I, P, P, P, S, I)
final, control = bind("EVP_CipherFinal_ex", I, P, P, P), bind("EVP_CIPHER_CTX_ctrl", I, P, I, I, P)
flags = bind("EVP_CIPHER_CTX_set_flags", None, P, I)
key_size, iv_size = bind("EVP_CIPHER_get_key_length", I, P), bind("EVP_CIPHER_get_iv_length", I, P)
mode, has_tag = bind("EVP_CIPHER_get_mode", I, P), bind("EVP_CIPHER_get_flags", ctypes.c_ulong, P)
WRAP, CCM, AEAD = 0x10002, 7, 0x200000
def run(cipher, text, direction, tag):
    context, n = new(), c_int(0)
    out, got = create_string_buffer(len(text) + 256), b""
    flags(context, 1) # the wrapping modes have to be allowed
    ok = init(context, cipher, None, None, None, direction) == 1
    if has_tag(cipher) & AEAD and mode(cipher) == CCM:
        ok = ok and control(context, 0x11, 16, tag if direction == 0 else None) == 1
    elif tag is not None:
        control(context, 0x11, 16, tag)
    ok = ok and init(context, None, None, pattern(max(key_size(cipher), 1), 7), pattern(max(iv_size(cipher), 16), 9), direction) == 1
    if mode(cipher) == CCM:
        ok = ok and update(context, None, byref(n), None, len(text)) == 1
    if has_tag(cipher) & AEAD:
        ok = ok and update(context, None, byref(n), b"associated", 10) == 1
    # some modes take everything at once
    ok = ok and update(context, out, byref(n), text, len(text)) == 1
    got = out.raw[:n.value] if ok else b""
    ok = ok and final(context, out, byref(n)) == 1
    got += out.raw[:n.value] if ok else b"none"
    new_tag = create_string_buffer(16)
    if ok and direction == 1 and has_tag(cipher) & AEAD:
        control(context, 0x10, 16, new_tag)
    free(context)
    return ok, got, new_tag.raw
for name in every("CIPHER"):
    if b"-HMAC-" in name: # they are TLS's own, and need its records
        show("cipher", name)
        continue
    cipher = fetch(None, name, None)
    total, good, back = hashlib.sha256(), 0, 0
    for text in TEXTS[3:]:
        ok, packed, tag = run(cipher, text, 1, None)
        total.update(packed + tag)
        if not ok:
            continue
        good += 1
        ok, plain, _ = run(cipher, packed, 0, tag if has_tag(cipher) & AEAD else None)
        back += ok and plain == text
    # RFC 3217 takes an initial value by chance
    show("cipher", name, str(good), str(back), "-" if name == b"DES3-WRAP" else total.hexdigest())

quick = bind("EVP_Q_mac", P, P, S, S, S, P, S, Z, S, Z, P, Z, P)
digests = [b"MD5", b"SHA1", b"SHA224", b"SHA256", b"SHA384", b"SHA512", b"SHA3-256", b"SHA3-512", b"SM3", b"RIPEMD-160"]
ciphers = [b"AES-128-CBC", b"AES-256-CBC", b"CAMELLIA-128-CBC", b"DES-EDE3-CBC"]
# GMAC takes an initial value by chance when it has none; the cipher GCM has it all
MACS = {b"HMAC": (digests, 20), b"CMAC": (ciphers, 0), b"GMAC": ([], 0), b"KMAC-128": ([None], 32),
    b"KMAC-256": ([None], 32), b"SIPHASH": ([None], 16), b"POLY1305": ([None], 32), b"BLAKE2BMAC": ([None], 64), b"BLAKE2SMAC": ([None], 32)}
KEYS = {b"AES-128-CBC": 16, b"AES-256-CBC": 32, b"CAMELLIA-128-CBC": 16, b"DES-EDE3-CBC": 24}
for name in every("MAC"):
    if name not in MACS:
        show("mac", name, "is new here")
        continue
    subs, length = MACS[name]
    for sub in subs:
        total, good, length = hashlib.sha256(), 0, KEYS.get(sub, length)
        for text in TEXTS[1:]:
            out, n = create_string_buffer(256), c_size_t(0)
            if quick(None, name, None, sub, None, pattern(length, 3), length, text, len(text), out, 256, byref(n)):
                good += 1
                total.update(out.raw[:n.value])
        show("mac", name, sub or b"-", good, total.hexdigest() if good else "-")
`;
