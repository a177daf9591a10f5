/** What long tests need on this host: installed when this is root on Debian, else named. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const APT_ENVIRONMENT = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };

/** apt-get, quietly. @returns whether it did what it was asked */
function apt(args: readonly string[], folder?: string): boolean {
  const r = spawnSync("apt-get", ["-qq", "-o", "DPkg::Lock::Timeout=300", ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    env: APT_ENVIRONMENT,
    ...(folder === undefined ? {} : { cwd: folder }),
  });
  return r.status === 0;
}
const canInstall = (): boolean => process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");

/**
 * @param needed what must be there, a program's name or a file's path, by the package that has it
 * @throws when it cannot be had
 */
export function needOnHost(needed: Readonly<Record<string, string>>): void {
  const isThere = (what: string): boolean =>
    what.startsWith("/") ? existsSync(what) : spawnSync("sh", ["-c", `command -v ${what}`]).status === 0;
  const packages = Object.keys(needed).filter((name) => !isThere(needed[name]!));
  if (packages.length === 0) return;
  if (canInstall() && apt(["update"]) && apt(["install", "-y", "--no-install-recommends", ...packages])) return;
  throw new Error(`this test needs packages on the host: apt-get install ${packages.join(" ")}`);
}

/** A package's file, not installed, in the folder. @throws when it cannot be had */
export function downloadPackage(name: string, folder: string): void {
  if (
    existsSync("/usr/bin/apt-get") &&
    (apt(["download", name], folder) || (apt(["update"]) && apt(["download", name], folder)))
  )
    return;
  throw new Error(`the package ${name} cannot be had: this test needs a Debian with a mirror`);
}
