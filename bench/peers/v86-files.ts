/** Where v86 is, if it is here, and the 32-bit guest that it needs. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { readAptSettings } from "../../src/host/node/apt-sources.js";
import { readKeyring } from "../../src/host/node/keyring.js";
import { Mirror } from "../../src/host/node/mirror.js";
import { cacheFolder, FolderCache, sha256 } from "../../src/host/node/package-cache.js";
import { readDeb } from "../../src/image/deb.js";
import { DebianArchive } from "../../src/image/debian-archive.js";
import { INDEX_LIFE_MS, kernelImage } from "../../src/image/debian-guest.js";
import { ImageError, type PackageSource } from "../../src/image/index.js";
import { type GuestPaths, writeGuestFiles } from "../guestbench/guestbench.js";

export interface V86Files {
  readonly version: string;
  readonly library: string;
  readonly wasm: string;
  readonly bios: string;
  readonly vgaBios: string;
}

const SEABIOS = "/usr/share/seabios";
const LIBRARY = "build/libv86.mjs";

/**
 * @param folder of the npm package, or one that has it among its node_modules; without it: what this repository can import
 * @returns what to do where something is missing
 */
export function findV86(folder: string | undefined, firmware = SEABIOS): V86Files | string {
  const place = packageFolder(folder);
  if (place === undefined)
    return folder === undefined
      ? "npm install v86 in a folder, then --v86 FOLDER or ENLIGHTEN_BENCH_V86=FOLDER"
      : `there is no v86 in ${folder}: npm install v86 there`;
  const files = {
    library: join(place, LIBRARY),
    wasm: join(place, "build/v86.wasm"),
    bios: join(firmware, "bios.bin"),
    vgaBios: join(firmware, "vgabios-stdvga.bin"),
  };
  if (!existsSync(files.bios) || !existsSync(files.vgaBios)) return "apt install seabios (v86's firmware)";
  const { version } = JSON.parse(readFileSync(join(place, "package.json"), "utf8")) as { version: string };
  return { ...files, version: version.split("+")[0]! };
}

function packageFolder(folder: string | undefined): string | undefined {
  if (folder !== undefined && existsSync(join(folder, LIBRARY))) return resolve(folder);
  const from = folder === undefined ? import.meta.filename : join(resolve(folder), "none.js");
  try {
    return dirname(dirname(createRequire(from).resolve("v86")));
  } catch {
    return undefined;
  }
}

/** The main archive alone: its kernel will do for a guest that runs nothing else, and security's has no i386 on all mirrors. */
function mainArchive(mirror: Mirror): PackageSource {
  return {
    name: mirror.name,
    keyring: mirror.keyring,
    async fetch(archive, path, options) {
      if (archive !== "main") throw new ImageError("not-found", `${archive} is not asked`, "use main");
      return mirror.fetch(archive, path, options);
    },
  };
}

/** Debian's kernel for 32-bit processors and its busybox around the program; fetched once, checked, cached. */
export async function writeGuest32(program: string, folder: string): Promise<GuestPaths> {
  const environment = process.env;
  const apt = await readAptSettings();
  const archive = await DebianArchive.open(
    "bookworm",
    {
      source: mainArchive(new Mirror({ environment, apt, keyring: () => readKeyring() })),
      cache: new FolderCache(cacheFolder(environment)),
      sha256,
      now: () => Date.now(),
      allowExpired: apt.configuration.get("acquire::check-valid-until") === "false",
      architecture: "i386",
    },
    INDEX_LIFE_MS,
  );
  const file = async (name: ReturnType<typeof kernelImage>, path: RegExp): Promise<Uint8Array> => {
    const { files } = await readDeb(await archive.fetch(name));
    const found = files.find((entry) => path.test(entry.path));
    if (found?.kind !== "file") throw new Error(`${name.record.name} has no file ${path.source}`);
    return found.data;
  };
  const kernel = await file(kernelImage(archive, "linux-image-686"), /^(\.?\/)?boot\/vmlinuz-/);
  const busybox = await file(archive.need("busybox-static"), /(^|\/)bin\/busybox$/);
  return writeGuestFiles(folder, kernel, busybox, program);
}
