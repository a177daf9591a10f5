/**
 * The guest's own root file system, unpacked on this host: its programs run natively there, and say what is right. They are the same
 * files, so nothing has to be installed here in the same version.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { needOnHost } from "./host-programs.js";

export interface NativeResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

/** A host's libm takes FMA where it has it, and rounds other bits: as the guest does, it goes without. */
const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
  GLIBC_TUNABLES: "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-FMA,-FMA4",
};

export class NativeRoot {
  readonly folder: string;

  /** @param disk a file system's image  @param folder a new one */
  constructor(disk: string, folder: string) {
    needOnHost({ e2fsprogs: "debugfs" });
    this.folder = folder;
    mkdirSync(folder);
    const r = spawnSync("debugfs", ["-R", `rdump / ${folder}`, disk], { encoding: "utf8" });
    if (r.status !== 0) throw new Error(`debugfs: ${r.stderr}`);
    for (const [name, minor] of [
      ["null", 3],
      ["zero", 5],
      ["urandom", 9],
    ] as const)
      spawnSync("mknod", ["-m", "666", join(folder, "dev", name), "c", "1", String(minor)]);
  }

  run(command: string, timeoutMs = 600_000): Promise<NativeResult> {
    return new Promise((resolve, reject) => {
      const child = spawn("chroot", [this.folder, "/bin/sh", "-c", command], {
        env: ENVIRONMENT,
        stdio: ["ignore", "pipe", "pipe"],
        timeout: timeoutMs,
      });
      const out: Buffer[] = [];
      const err: Buffer[] = [];
      child.stdout.on("data", (b: Buffer) => out.push(b));
      child.stderr.on("data", (b: Buffer) => err.push(b));
      child.on("error", reject);
      child.on("close", (exitCode) =>
        resolve({ stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), exitCode }),
      );
    });
  }
  read(path: string): Buffer {
    return readFileSync(join(this.folder, path));
  }
  write(path: string, data: string | Uint8Array): void {
    writeFileSync(join(this.folder, path), data);
  }
}
