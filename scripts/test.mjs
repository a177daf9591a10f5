/**
 * Runs the tests: node scripts/test.mjs [unit|cpu|guests] [-- patterns]. Without a group: all, in one run of Node's test runner.
 *
 * unit: beside the sources; cpu: against the real processor and bare machines; guests: real kernels, and the package.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const dist = join(root, "dist");
const group = process.argv[2] ?? "all";

/** Debian packages that tests use: the oracle programs, shells. Installed when this is root on Debian, else named. */
const NEEDED = {
  gcc: "gcc",
  iasl: "acpica-tools",
  "qemu-system-x86_64": "qemu-system-x86",
  xz: "xz-utils",
  zstd: "zstd",
  lz4: "lz4",
  cpio: "cpio",
  nasm: "nasm",
  zsh: "zsh",
  fish: "fish",
};
const has = (program) => spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
const missing = Object.keys(NEEDED).filter((p) => !has(p));
if (missing.length > 0) {
  const packages = [...missing.map((p) => NEEDED[p]), ...(missing.includes("gcc") ? ["libc6-dev"] : [])];
  if (process.getuid?.() === 0 && existsSync("/usr/bin/apt-get")) {
    console.log(`installing what the tests compare with: ${packages.join(" ")}`);
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    const apt = (...args) =>
      spawnSync("apt-get", ["-qq", "-o", "DPkg::Lock::Timeout=300", ...args], {
        stdio: ["ignore", "ignore", "inherit"],
        env,
      });
    apt("update");
    const r = apt("install", "-y", "--no-install-recommends", ...packages);
    if (r.status !== 0) process.exit(1);
  } else {
    console.error(
      `the tests compare with programs that are not here: ${missing.join(" ")}\n  try: apt-get install ${packages.join(" ")}`,
    );
    process.exit(1);
  }
}

function find(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .filter((f) => f.endsWith(".test.js"))
    .map((f) => join(folder, f))
    .sort();
}
const groups = {
  unit: () => ["src", "scripts", "bench", "tests/control"].flatMap((f) => find(join(dist, f))),
  cpu: () => ["reference", "bare", "regions", "qemu"].flatMap((f) => find(join(dist, "tests", f))),
  guests: () => [
    ...find(join(dist, "tests", "guests")),
    ...find(join(dist, "tests", "image")),
    ...find(join(dist, "tests", "package")),
  ],
};
const files = group === "all" ? Object.values(groups).flatMap((f) => f()) : groups[group]?.();
if (files === undefined || files.length === 0) {
  console.error(`no tests in group "${group}"; groups: all ${Object.keys(groups).join(" ")}`);
  process.exit(2);
}
// two files at a time: each real guest takes a core
const child = spawn(
  process.execPath,
  ["--test", "--enable-source-maps", "--test-reporter=spec", "--test-concurrency=2", "--test-timeout=600000", ...files],
  { stdio: "inherit" },
);
child.on("exit", (code, signal) => process.exit(code ?? (signal ? 1 : 0)));
