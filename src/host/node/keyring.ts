/** The keys that sign Debian's archives: a file the user names, else the host's, else those that come with us. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ImageError } from "../../image/errors.js";
import { ENGINE_FILES } from "./engine-files.js";

const HOST_KEYRINGS = [
  "/usr/share/keyrings/debian-archive-keyring.gpg",
  "/usr/share/keyrings/debian-archive-keyring.pgp", // its name from Debian 13 on
];

/**
 * @param named `--keyring`
 * @param root  where the host's keyrings are looked up: "/" but in tests
 */
export async function readKeyring(named?: string, root = "/"): Promise<Uint8Array> {
  if (named !== undefined) {
    return readFile(named).catch((error: unknown) => {
      throw new ImageError("no-keyring", `the keyring ${named} cannot be read`, "check the path", { cause: error });
    });
  }
  for (const path of [...HOST_KEYRINGS.map((keyring) => join(root, keyring)), ENGINE_FILES.archiveKeys]) {
    const bytes = await readFile(path).catch(() => undefined);
    if (bytes !== undefined) return bytes;
  }
  throw new ImageError(
    "no-keyring",
    "this host has no keys of Debian's archives",
    "install debian-archive-keyring, or give its key file with --keyring FILE",
  );
}
