/**
 * Puts the package together in dist/bundle, from what setup.mjs has built: the entries with the libraries they use, the engine's
 * modules, the archive's keys, type declarations, and the libraries' licences.
 *
 *   node scripts/bundle.mjs
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");
const sources = join(root, "dist", "src");
const out = join(root, "dist", "bundle");
const licences = join(root, "data", "licences");

/**
 * Libraries that stay files of their own, as published. OpenPGP.js is under the LGPL: whoever has the package can put another
 * version in its place.
 */
const SEPARATE = { openpgp: "dist/node/openpgp.mjs" };

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const separate = {
  name: "separate",
  setup(b) {
    b.onResolve({ filter: new RegExp(`^(${Object.keys(SEPARATE).join("|")})$`) }, ({ path }) => ({
      path: `./${path}.js`,
      external: true,
    }));
  },
};
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: {
    main: join(sources, "cli/main.js"),
    index: join(sources, "host/node/index.js"),
    "processor-worker": join(sources, "host/node/processor-worker.js"),
    "device-worker": join(sources, "host/node/device-worker.js"),
    "region-worker": join(sources, "host/node/region-worker.js"),
    "network-worker": join(sources, "host/node/network-worker.js"),
  },
  outdir: out,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20.19",
  // libraries in CommonJS ask for Node's own modules this way
  banner: {
    js: 'import { createRequire as nodeRequire } from "node:module"; const require = nodeRequire(import.meta.url);',
  },
  plugins: [separate],
  metafile: true,
  logLevel: "warning",
});

for (const name of ["runtime.wasm", "interpreter.wasm", "engine.key"])
  copyFileSync(join(root, "dist", name), join(out, name));
copyFileSync(join(root, "data", "debian-archive-keys.gpg"), join(out, "debian-archive-keys.gpg"));
for (const [name, file] of Object.entries(SEPARATE))
  copyFileSync(join(root, "node_modules", name, file), join(out, `${name}.js`));

/** The declarations that the entry's leads to. */
function copyDeclarations(file, seen = new Set()) {
  if (seen.has(file)) return;
  seen.add(file);
  const text = readFileSync(file, "utf8");
  const to = join(out, "types", relative(sources, file));
  mkdirSync(dirname(to), { recursive: true });
  writeFileSync(to, text.replace(/^\/\/# sourceMappingURL=.*\n?/m, ""));
  for (const [, target] of text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
    if (target.startsWith(".")) copyDeclarations(join(dirname(file), target.replace(/\.js$/, ".d.ts")), seen);
    else if (!target.startsWith("node:"))
      throw new Error(`${relative(root, file)} shows types of ${target}, which the package does not have`);
  }
}
copyDeclarations(join(sources, "host/node/index.d.ts"));

/** Name, licence and text of a library whose code is in the package. */
function notice(name) {
  const folder = join(root, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((f) => /^(licen[cs]e|copying)/i.test(f));
  let text = file === undefined ? undefined : readFileSync(join(folder, file), "utf8");
  if (text === undefined && license === "MIT") {
    const { main } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const head = /^\/\*!?([\s\S]*?)\*\//.exec(readFileSync(join(folder, main), "utf8"))?.[1];
    if (head !== undefined)
      text = `${head.replace(/^ \* ?/gm, "").trim()}\n\n${readFileSync(join(licences, "MIT.txt"), "utf8")}`;
  }
  if (text === undefined) throw new Error(`no licence text of ${name} (${license}) is known`);
  if (license.startsWith("LGPL")) {
    const how = `${name}.js is this library, complete and unchanged; another version may take its place.`;
    text = `${how}\n\n${text.trim()}\n\n${readFileSync(join(licences, "GPL-3.0.txt"), "utf8")}`;
  }
  return `${name} ${version} (${license})\n${"=".repeat(78)}\n${text.trim()}\n`;
}
const bundled = Object.keys(metafile.inputs).map(
  (path) => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1],
);
const names = [...new Set([...bundled.filter((name) => name !== undefined), ...Object.keys(SEPARATE)])].sort();
const head =
  "enlighten contains these libraries. debian-archive-keys.gpg holds the public keys of Debian's archives, which fall\nunder no copyright.\n";
writeFileSync(join(out, "THIRD-PARTY-NOTICES"), [head, ...names.map(notice)].join("\n\n"));
for (const name of ["main.js", "index.js", "processor-worker.js", "device-worker.js", "region-worker.js"])
  if (!existsSync(join(out, name))) throw new Error(`the bundle has no ${name}`);
