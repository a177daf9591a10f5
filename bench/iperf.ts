/** Debian's iperf3 with its libraries, from the packages of the mirror (signed index, hashes), for the host and for guests that have neither. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmod, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { basename, join } from "node:path";
import { readAptSettings } from "../src/host/node/apt-sources.js";
import { readKeyring } from "../src/host/node/keyring.js";
import { Mirror } from "../src/host/node/mirror.js";
import { cacheFolder, FolderCache, sha256 } from "../src/host/node/package-cache.js";
import { readDeb } from "../src/image/deb.js";
import { DebianArchive } from "../src/image/debian-archive.js";
import { INDEX_LIFE_MS } from "../src/image/debian-guest.js";

const PACKAGES = ["iperf3", "libiperf0", "libsctp1", "libssl3", "libc6"];
const LOADER = "ld-linux-x86-64.so.2";
const LIBRARIES = ["libiperf.so.0", "libsctp.so.1", "libssl.so.3", "libcrypto.so.3", "libm.so.6", "libc.so.6"];
const FILES = ["iperf3", LOADER, ...LIBRARIES];

/** By name, what has to be in one folder. */
export async function iperfFiles(): Promise<Map<string, Uint8Array>> {
  const environment = process.env;
  const source = new Mirror({
    mirror: undefined,
    offline: undefined,
    environment,
    apt: await readAptSettings(),
    keyring: () => readKeyring(undefined),
  });
  const cache = new FolderCache(cacheFolder(environment));
  const archive = await DebianArchive.open("bookworm", { source, cache, sha256, now: () => Date.now() }, INDEX_LIFE_MS);
  const out = new Map<string, Uint8Array>();
  for (const name of PACKAGES) {
    const { files } = await readDeb(await archive.fetch(archive.need(name)));
    const programs = files.filter(({ path, kind }) => /^(usr\/)?(bin|lib|lib64)\//.test(path) && kind !== "directory");
    const named = (wanted: string) => programs.find(({ path }) => basename(path) === wanted);
    for (const wanted of FILES) {
      let found = named(wanted);
      while (found?.kind === "symlink") found = named(basename(found.link));
      if (found !== undefined) out.set(wanted, found.data);
    }
  }
  const missing = FILES.filter((name) => !out.has(name));
  if (missing.length > 0) throw new Error(`the packages have no ${missing.join(", ")}`);
  return out;
}

/** @param folder that has the files */
export const iperf = (folder: string, args: string): string =>
  `${folder}/${LOADER} --library-path ${folder} ${folder}/iperf3 ${args}`;

/** Writes the files into a folder of the host, and starts a server on its loopback address. */
export async function iperfServer(
  folder: string,
  files: ReadonlyMap<string, Uint8Array>,
): Promise<{ readonly child: ChildProcess; readonly port: number }> {
  for (const [name, data] of files) {
    await writeFile(join(folder, name), data);
    await chmod(join(folder, name), 0o755);
  }
  const port = 20_000 + (process.pid % 20_000);
  const [program, ...args] = iperf(folder, `-s -p ${port} -B 127.0.0.1`).split(" ");
  const child = spawn(program!, args, { stdio: "ignore" });
  for (;;) {
    if (child.exitCode !== null) throw new Error(`iperf3 ended with ${child.exitCode}`);
    const isThere = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1", () => resolve(true));
      socket.on("connect", () => socket.destroy()).on("error", () => resolve(false));
    });
    if (isThere) return { child, port };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
