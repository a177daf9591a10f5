/** Debian binary packages (deb(5), format 2.0): an ar archive of "debian-binary", "control.tar.*" and "data.tar.*". */
import { readAr, writeAr } from "./ar.js";
import { encodeUtf8, utf8 } from "./byte-reader.js";
import { decompress } from "./compression.js";
import { type Paragraph, parseParagraph } from "./deb822.js";
import { damaged, unsupported } from "./errors.js";
import { readTar, type TarEntry } from "./tar.js";
import { type NewTarEntry, writeTar } from "./tar-writer.js";

export interface Deb {
  readonly control: Paragraph;
  readonly files: readonly TarEntry[];
}

export async function readDeb(bytes: Uint8Array): Promise<Deb> {
  const members = readAr(bytes);
  const version = members.find(({ name }) => name === "debian-binary");
  if (version === undefined) throw damaged("Debian package", "it has no debian-binary member");
  if (!utf8(version.data).startsWith("2.")) {
    throw unsupported("the Debian package is not of format 2", "get a package built by dpkg-deb");
  }
  const unpack = async (prefix: string): Promise<TarEntry[]> => {
    const member = members.find(({ name }) => name === prefix || name.startsWith(`${prefix}.`));
    if (member === undefined) throw damaged("Debian package", `it has no ${prefix} member`);
    return readTar(await decompress(member.data));
  };
  const control = (await unpack("control.tar")).find(({ path }) => path === "control");
  if (control === undefined) throw damaged("Debian package", "it has no control file");
  return { control: parseParagraph(utf8(control.data)), files: await unpack("data.tar") };
}

export interface UnpackedDeb {
  /** The same package, its members not packed (dpkg takes that since 1.17.6): installing it needs no xz. */
  readonly deb: Uint8Array<ArrayBuffer>;
  /** Its data.tar. */
  readonly data: Uint8Array;
}

export async function unpackDeb(bytes: Uint8Array): Promise<UnpackedDeb> {
  const members = readAr(bytes);
  const [version, ...rest] = members;
  if (version?.name !== "debian-binary") throw damaged("Debian package", "it does not begin with debian-binary");
  const unpacked = [version];
  for (const { name, data } of rest) {
    const plain = /^(control|data)\.tar/.exec(name)?.[0];
    // dpkg stops at members that it does not know, but for those whose names begin with "_"
    if (plain !== undefined) unpacked.push({ name: plain, data: await decompress(data) });
  }
  const data = unpacked.find(({ name }) => name === "data.tar")?.data;
  if (data === undefined || unpacked.length !== 3) throw damaged("Debian package", "it has no control.tar or data.tar");
  return { deb: writeAr(unpacked), data };
}

/** A new package. @param control the control file's text */
export function writeDeb(control: string, files: readonly NewTarEntry[]): Uint8Array<ArrayBuffer> {
  return writeAr([
    { name: "debian-binary", data: encodeUtf8("2.0\n") },
    {
      name: "control.tar",
      data: writeTar([{ kind: "file", path: "control", mode: 0o644, data: encodeUtf8(control) }]),
    },
    { name: "data.tar", data: writeTar(files) },
  ]);
}
