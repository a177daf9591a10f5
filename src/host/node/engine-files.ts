/**
 * The files that the code needs beside itself. In the package they stand in its folder; in a checkout, in `dist` and `data`
 * (scripts/bundle.mjs puts them together).
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

const here = import.meta.dirname;
const isPackage = existsSync(join(here, "runtime.wasm"));
const built = isPackage ? here : join(here, "../../..");
const data = isPackage ? here : join(here, "../../../../data");

export const ENGINE_FILES = {
  runtime: join(built, "runtime.wasm"),
  interpreter: join(built, "interpreter.wasm"),
  /** Hash of the engine's code: what was compiled by another is not used. */
  engineKey: join(built, "engine.key"),
  processorWorker: join(here, "processor-worker.js"),
  deviceWorker: join(here, "device-worker.js"),
  regionWorker: join(here, "region-worker.js"),
  networkWorker: join(here, "network-worker.js"),
  /** Public keys that sign Debian's archives (bullseye, bookworm, trixie). */
  archiveKeys: join(data, "debian-archive-keys.gpg"),
} as const;
