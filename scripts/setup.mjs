/**
 * Makes a checkout ready to run: dependencies, build. Says what it does, and does nothing when nothing has changed.
 *
 *   node scripts/setup.mjs
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`enlighten: Node ${process.versions.node} is too old\n  try: Node 20.19 or later`);
  process.exit(125);
}

/** Files under a folder with their times and sizes: what the build depends on. */
function fingerprint(paths) {
  const hash = createHash("sha256");
  const visit = (path) => {
    const full = join(root, path);
    if (!existsSync(full)) return;
    const s = statSync(full);
    if (s.isDirectory()) for (const name of readdirSync(full).sort()) visit(join(path, name));
    else if (path !== GENERATED) hash.update(`${path}\0${s.size}\0${s.mtimeMs}\n`);
  };
  for (const p of paths) visit(p);
  return hash.digest("hex");
}
const GENERATED = join("src", "cpu", "runtime", "assembly", "layout.ts");

const say = (text) =>
  process.stderr.write(process.stderr.isTTY ? `\r\x1b[Kenlighten: ${text}` : `enlighten: ${text}\n`);
const clear = () => process.stderr.isTTY && process.stderr.write("\r\x1b[K");

function step(text, command, args) {
  say(`${text} …`);
  const started = Date.now();
  const r = spawnSync(command, args, { cwd: root, encoding: "utf8", maxBuffer: 64 << 20 });
  if (r.status !== 0) {
    clear();
    console.error(`enlighten: ${text} failed\n${r.stdout ?? ""}${r.stderr ?? ""}${r.error ?? ""}`);
    process.exit(125);
  }
  return Date.now() - started;
}
/** Hash of everything that compiled code depends on. */
function engineKey() {
  const hash = createHash("sha256");
  const folder = join(root, "dist", "src", "cpu");
  for (const name of readdirSync(folder, { recursive: true }).sort())
    if (name.endsWith(".js") && !name.endsWith(".test.js"))
      hash.update(`${name}\0`).update(readFileSync(join(folder, name)));
  for (const name of ["runtime.wasm", "interpreter.wasm"]) hash.update(readFileSync(join(root, "dist", name)));
  return hash.digest("hex");
}
const stamp = (name) => join(root, "dist", name);
const same = (name, value) => existsSync(stamp(name)) && readFileSync(stamp(name), "utf8") === value;
const keep = (name, value) => {
  writeFileSync(`${stamp(name)}.new`, value);
  renameSync(`${stamp(name)}.new`, stamp(name));
};

const node = process.execPath;
const tool = (...path) => join(root, "node_modules", ...path);
const lock = createHash("sha256")
  .update(readFileSync(join(root, "package-lock.json")))
  .digest("hex");
mkdirSync(join(root, "dist"), { recursive: true });
if (!existsSync(tool("typescript-native")) || !same(".dependencies", lock)) {
  const npm = process.env.npm_execpath;
  // not "ci": a registry without every platform's optional package leaves them out of the lock, and ci refuses that
  const args = ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"];
  if (npm?.endsWith(".js")) step("installing dependencies", node, [npm, ...args]);
  else step("installing dependencies", process.platform === "win32" ? "npm.cmd" : "npm", args);
  keep(".dependencies", lock);
}

const sources = fingerprint(["src", "tests", "bench", "scripts", "tsconfig.json", "package.json"]);
if (!same(".sources", sources) || !existsSync(stamp("interpreter.wasm"))) {
  rmSync(stamp(".sources"), { force: true });
  step("compiling", node, [tool("typescript-native", "bin", "tsc"), "-p", "."]);
  step("generating the layout", node, [join(root, "scripts", "generate-layout.mjs"), join(root, "dist")]);
  const assembly =
    fingerprint(["src/cpu/runtime/assembly"]) +
    createHash("sha256")
      .update(readFileSync(join(root, GENERATED)))
      .digest("hex");
  if (!same(".assembly", assembly) || !existsSync(stamp("runtime.wasm"))) {
    step("compiling the runtime", node, [
      tool("assemblyscript", "bin", "asc.js"),
      "src/cpu/runtime/assembly/index.ts",
      "-o",
      "dist/runtime.wasm",
      "--runtime",
      "stub",
      "--importMemory",
      "--sharedMemory",
      "--initialMemory",
      "4",
      "--maximumMemory",
      "65536",
      "--enable",
      "threads",
      "--enable",
      "simd",
      "--enable",
      "bulk-memory",
      "--memoryBase",
      "65536",
      "-O3",
      "--noAssert",
      "--use",
      "abort=",
    ]);
    keep(".assembly", assembly);
  }
  step("generating the interpreter", node, [
    join(root, "dist", "scripts", "generate-interpreter.js"),
    join(root, "dist", "interpreter.wasm"),
  ]);
  keep("engine.key", engineKey());
  keep(".sources", sources);
}
clear();
