/** Unix `ar` archives, as far as Debian packages use them (deb(5)): no symbol table, GNU or BSD short names. */
import { ByteReader, concatBytes, encodeUtf8, hasBytes } from "./byte-reader.js";
import { damaged, ImageError } from "./errors.js";

export interface ArMember {
  readonly name: string;
  readonly data: Uint8Array;
}

const MAGIC = "!<arch>\n";
const HEADER_SIZE = 60;

export function readAr(bytes: Uint8Array): ArMember[] {
  if (!hasBytes(bytes, 0, MAGIC)) {
    throw new ImageError("not-ar", "this is not an ar archive", "give a Debian package (.deb)");
  }
  const reader = new ByteReader(bytes, "ar archive");
  const members: ArMember[] = [];
  let at = MAGIC.length;
  while (at < bytes.length) {
    const name = reader.text(at, 16).trimEnd().replace(/\/$/, "");
    const sizeText = reader.text(at + 48, 10).trim();
    if (!/^\d+$/.test(sizeText)) throw damaged("ar archive", `the size of member ${name} is no number`);
    if (reader.u16(at + 58) !== 0x0a60) throw damaged("ar archive", `the header of member ${name} has no end mark`);
    const size = Number(sizeText);
    members.push({ name, data: reader.slice(at + HEADER_SIZE, size) });
    at += HEADER_SIZE + size + (size & 1); // members start at even offsets
  }
  return members;
}

/** An archive as `dpkg-deb` writes it: times, owners and groups 0, mode 100644. Names have at most 15 bytes. */
export function writeAr(members: readonly ArMember[]): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [encodeUtf8(MAGIC)];
  for (const { name, data } of members) {
    const fields = [name.padEnd(16), "0".padEnd(12), "0".padEnd(6), "0".padEnd(6), "100644".padEnd(8)];
    parts.push(encodeUtf8(`${fields.join("")}${String(data.length).padEnd(10)}\`\n`), data);
    if (data.length % 2 === 1) parts.push(encodeUtf8("\n"));
  }
  return concatBytes(parts);
}
