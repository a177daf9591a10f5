/** Rows of SSE3, SSSE3, SSE4.1, SSE4.2, AES, PCLMULQDQ and SHA. */

import * as V from "./vector.js";
import type { VectorOp } from "./vector-codes.js";
import * as X from "./vector-extended.js";
import { type Binary, binary, mm, mmUnary, op, Simd, unary, v } from "./vector-ops.js";
import { integer, mmx, sse } from "./vector-row.js";

const hex = (n: number): string => n.toString(16).padStart(2, "0");

// SSE3
for (const [d, prefix] of [
  ["ps", "f2"],
  ["pd", "66"],
] as const) {
  sse(`hadd${d}`, `${prefix} 0f 7c`, "Vx,Wx", X.horizontal("add", d));
  sse(`hsub${d}`, `${prefix} 0f 7d`, "Vx,Wx", X.horizontal("sub", d));
  sse(`addsub${d}`, `${prefix} 0f d0`, "Vx,Wx", X.addSub(d));
}
sse("movsldup", "f3 0f 12", "Vx,Wx", unary(V.duplicate([0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11])));
sse("movshdup", "f3 0f 16", "Vx,Wx", unary(V.duplicate([4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15])));
sse("movddup", "f2 0f 12", "Vx,Wq", unary(V.duplicate([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7])));

// SSSE3
sse("pshufb", "66 0f38 00", "Vx,Wx", binary(X.pshufb));
mmx("pshufb", "np 0f38 00", "Pq,Qq", mm(X.pshufbMm));
for (const [name, code, simd, size] of [
  ["phaddw", 0x01, Simd.add16, 2],
  ["phaddd", 0x02, Simd.add32, 4],
  ["phaddsw", 0x03, Simd.addSatS16, 2],
  ["phsubw", 0x05, Simd.sub16, 2],
  ["phsubd", 0x06, Simd.sub32, 4],
  ["phsubsw", 0x07, Simd.subSatS16, 2],
] as const) {
  sse(name, `66 0f38 ${hex(code)}`, "Vx,Wx", binary(X.pairs(simd, size)));
  mmx(name, `np 0f38 ${hex(code)}`, "Pq,Qq", mm(X.sideBySide(X.pairs(simd, size))));
}
integer("pmaddubsw", "0f38 04", X.pmaddubsw);
integer("psignb", "0f38 08", X.psign(8));
integer("psignw", "0f38 09", X.psign(16));
integer("psignd", "0f38 0a", X.psign(32));
integer("pmulhrsw", "0f38 0b", X.pmulhrsw);
for (const [name, code, simd] of [
  ["pabsb", 0x1c, Simd.abs8],
  ["pabsw", 0x1d, Simd.abs16],
  ["pabsd", 0x1e, Simd.abs32],
] as const) {
  sse(
    name,
    `66 0f38 ${hex(code)}`,
    "Vx,Wx",
    unary((s, a) => v(s, simd, a)),
  );
  mmx(
    name,
    `np 0f38 ${hex(code)}`,
    "Pq,Qq",
    mmUnary((s, a) => v(s, simd, a)),
  );
}
sse("palignr", "66 0f3a 0f", "Vx,Wx,Ib", X.palignr);
mmx("palignr", "np 0f3a 0f", "Pq,Qq,Ib", X.palignrMm);

// SSE4.1
const sse4 = (name: string, map: "0f38" | "0f3a", code: number, f: Binary): void =>
  sse(name, `66 ${map} ${hex(code)}`, map === "0f3a" ? "Vx,Wx,Ib" : "Vx,Wx", binary(f));
sse4("pblendvb", "0f38", 0x10, X.blendVariable(X.byteMask));
sse4("blendvps", "0f38", 0x14, X.blendVariable(X.dwordMask));
sse4("blendvpd", "0f38", 0x15, X.blendVariable(X.qwordMask));
sse("ptest", "66 0f38 17", "Vx,Wx", V.ptest);
sse("movntdqa", "66 0f38 2a mem", "Vx,Mx", V.moveAligned, "vmova");
for (const [name, code, f] of [
  ["pmuldq", 0x28, V.mulEven(Simd.mulLowS32)],
  ["pcmpeqq", 0x29, op(Simd.eq64)],
  ["packusdw", 0x2b, op(Simd.narrow32U)],
  ["pcmpgtq", 0x37, op(Simd.gtS64)],
  ["pminsb", 0x38, op(Simd.minS8)],
  ["pminsd", 0x39, op(Simd.minS32)],
  ["pminuw", 0x3a, op(Simd.minU16)],
  ["pminud", 0x3b, op(Simd.minU32)],
  ["pmaxsb", 0x3c, op(Simd.maxS8)],
  ["pmaxsd", 0x3d, op(Simd.maxS32)],
  ["pmaxuw", 0x3e, op(Simd.maxU16)],
  ["pmaxud", 0x3f, op(Simd.maxU32)],
  ["pmulld", 0x40, op(Simd.mul32)],
] as const)
  sse4(name, "0f38", code, f);
const { extendS8, extendS16, extendS32, extendU8, extendU16, extendU32 } = Simd;
[
  ["sx", 0x20, extendS8, extendS16, extendS32],
  ["zx", 0x30, extendU8, extendU16, extendU32],
].forEach(([kind, first, b, w, d]) => {
  const to8 = b as number;
  const to16 = w as number;
  const to32 = d as number;
  const at = (n: number): string => `66 0f38 ${hex((first as number) + n)}`;
  sse(`pmov${kind}bw`, at(0), "Vx,Wq", unary(X.extend(to8)));
  sse(`pmov${kind}bd`, at(1), "Vx,Wd", unary(X.extend(to8, to16)));
  sse(`pmov${kind}bq`, at(2), "Vx,Ww", unary(X.extend(to8, to16, to32)));
  sse(`pmov${kind}wd`, at(3), "Vx,Wq", unary(X.extend(to16)));
  sse(`pmov${kind}wq`, at(4), "Vx,Wd", unary(X.extend(to16, to32)));
  sse(`pmov${kind}dq`, at(5), "Vx,Wq", unary(X.extend(to32)));
});
for (const [format, code, w] of [
  ["ps", 0x08, "Wx"],
  ["pd", 0x09, "Wx"],
  ["ss", 0x0a, "Wd"],
  ["sd", 0x0b, "Wq"],
] as const)
  sse(`round${format}`, `66 0f3a ${hex(code)}`, `Vx,${w},Ib`, X.round(format));
sse4("blendps", "0f3a", 0x0c, X.blend(32));
sse4("blendpd", "0f3a", 0x0d, X.blend(64));
sse4("pblendw", "0f3a", 0x0e, X.blend(16));
sse("pextrb", "66 0f3a 14 mod3", "Ed,Vx,Ib", X.extractElement(8));
sse("pextrb", "66 0f3a 14 mem", "Mb,Vx,Ib", X.extractElement(8));
sse("pextrw", "66 0f3a 15 mod3", "Ed,Vx,Ib", X.extractElement(16), "pextrwTo");
sse("pextrw", "66 0f3a 15 mem", "Mw,Vx,Ib", X.extractElement(16), "pextrwTo");
sse("pextr", "66 0f3a 16", "Ey,Vx,Ib", X.extractElement());
sse("extractps", "66 0f3a 17", "Ed,Vx,Ib", X.extractElement());
sse("pinsrb", "66 0f3a 20 mod3", "Vx,Ed,Ib", X.insertElement(8));
sse("pinsrb", "66 0f3a 20 mem", "Vx,Mb,Ib", X.insertElement(8));
sse("insertps", "66 0f3a 21", "Vx,Wd,Ib", X.insertps);
sse("pinsr", "66 0f3a 22", "Vx,Ey,Ib", X.insertElement());
sse("dpps", "66 0f3a 40", "Vx,Wx,Ib", X.dotProduct("ps"));
sse("dppd", "66 0f3a 41", "Vx,Wx,Ib", X.dotProduct("pd"));

// SSE4.2
sse("pcmpestrm", "66 0f3a 60", "Vx,Wx,Ib", X.compareStrings(true, "mask"), undefined, { rexW: true });
sse("pcmpestri", "66 0f3a 61", "Vx,Wx,Ib", X.compareStrings(true, "index"), undefined, { rexW: true });
sse("pcmpistrm", "66 0f3a 62", "Vx,Wx,Ib", X.compareStrings(false, "mask"));
sse("pcmpistri", "66 0f3a 63", "Vx,Wx,Ib", X.compareStrings(false, "index"));

// by helpers of the runtime
const operation = (name: keyof typeof VectorOp, encoding: string, operands = "Vx,Wx"): void =>
  sse(name, encoding, operands, X.operation(name));
operation("phminposuw", "66 0f38 41");
operation("mpsadbw", "66 0f3a 42", "Vx,Wx,Ib");
operation("aesimc", "66 0f38 db");
operation("aesenc", "66 0f38 dc");
operation("aesenclast", "66 0f38 dd");
operation("aesdec", "66 0f38 de");
operation("aesdeclast", "66 0f38 df");
operation("aeskeygenassist", "66 0f3a df", "Vx,Wx,Ib");
operation("pclmulqdq", "66 0f3a 44", "Vx,Wx,Ib");
operation("sha1nexte", "np 0f38 c8");
operation("sha1msg1", "np 0f38 c9");
operation("sha1msg2", "np 0f38 ca");
sse("sha256rnds2", "np 0f38 cb", "Vx,Wx", X.sha256rnds2);
operation("sha256msg1", "np 0f38 cc");
operation("sha256msg2", "np 0f38 cd");
operation("sha1rnds4", "np 0f3a cc", "Vx,Wx,Ib");
