/**
 * Branch coverage of the folders that speak a protocol with the guest, by their unit, protocol and hostile-guest tests. Prints a table;
 * fails when a file has less than 90 %. (Node's own reporter does not get along with these source maps; c8 reads the same data.)
 *
 *   npm run coverage
 */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const FOLDERS = [
  "hypervisor",
  "vmbus",
  "disk",
  "services/integration",
  "services/sockets",
  "services/storage",
  "control",
];
const tests = FOLDERS.flatMap((folder) => {
  const at = join("dist", "src", folder);
  return readdirSync(join(root, at))
    .filter((file) => file.endsWith(".test.js"))
    .map((file) => join(at, file));
});
const c8 = [
  "--reporter=text",
  "--check-coverage",
  "--per-file",
  "--branches=90",
  "--lines=90",
  "--exclude-after-remap",
  ...FOLDERS.flatMap((folder) => ["--include", `src/${folder}/**`]),
  // tests and what stands for the guest in them
  ...["**/*.test.*", "**/scripted-*", "**/failing-*", "**/chance.ts"].flatMap((pattern) => ["--exclude", pattern]),
];
const node = ["node", "--enable-source-maps", "--test", "--test-reporter=dot", ...tests];
const { status } = spawnSync("npx", ["--yes", "c8@12.0.0", ...c8, ...node], { cwd: root, stdio: "inherit" });
process.exitCode = status ?? 1;
