/** `npm run bench`: the kernels, then guestbench. `npm run bench -- kernels|guest|idle|storage [arguments]`: one of them. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";

const SCRIPTS: Readonly<Record<string, string>> = {
  kernels: "kernels/run.js",
  guest: "guest.js",
  idle: "idle.js",
  storage: "storage.js",
};
const [first, ...rest] = process.argv.slice(2);
const isOne = first !== undefined && Object.hasOwn(SCRIPTS, first);
if (first !== undefined && !isOne && !first.startsWith("-")) {
  console.error(`no benchmark "${first}"; benchmarks: ${Object.keys(SCRIPTS).join(" ")}`);
  process.exit(2);
}
for (const name of isOne ? [first] : ["kernels", "guest"]) {
  const args = isOne ? rest : name === "guest" ? process.argv.slice(2) : [];
  if (!isOne) console.log(`\n${name}`);
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, SCRIPTS[name]!), ...args], {
    stdio: "inherit",
  });
  if (status !== 0) process.exitCode = status ?? 1;
}
