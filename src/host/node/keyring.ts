/** The keys that sign Debian's archives: a file the user names, else the host's, else one that is shipped as data. */
import { readFile } from "node:fs/promises";
import { ImageError } from "../../image/errors.js";

const HOST_KEYRINGS = [
  "/usr/share/keyrings/debian-archive-keyring.gpg",
  "/usr/share/keyrings/debian-archive-keyring.pgp", // its name from Debian 13 on
];

/**
 * @param named   `--keyring`
 * @param shipped a key file of ours, the last resort on hosts that are no Debian
 */
export async function readKeyring(named?: string, shipped?: string): Promise<Uint8Array> {
  if (named !== undefined) {
    return readFile(named).catch((error: unknown) => {
      throw new ImageError("no-keyring", `the keyring ${named} cannot be read`, "check the path", { cause: error });
    });
  }
  for (const path of shipped === undefined ? HOST_KEYRINGS : [...HOST_KEYRINGS, shipped]) {
    const bytes = await readFile(path).catch(() => undefined);
    if (bytes !== undefined) return bytes;
  }
  throw new ImageError(
    "no-keyring",
    "this host has no keys of Debian's archives",
    "install debian-archive-keyring, or give its key file with --keyring FILE",
  );
}
