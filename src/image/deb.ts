/** Debian binary packages (deb(5), format 2.0): an ar archive of "debian-binary", "control.tar.*" and "data.tar.*". */
import { readAr } from "./ar.js";
import { utf8 } from "./byte-reader.js";
import { decompress } from "./compression.js";
import { type Paragraph, parseParagraph } from "./deb822.js";
import { damaged, unsupported } from "./errors.js";
import { readTar, type TarEntry } from "./tar.js";

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
