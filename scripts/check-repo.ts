/**
 * Checks what no compiler does: the import rule (ARCHITECTURE.md), file sizes, names of files, platform freedom.
 *
 *   npm run check
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

const root = join(import.meta.dirname, "../..");

/** A folder may import itself and what stands to its left. */
const ORDER = [
  ["cpu", "disk", "net", "image", "trace"],
  ["machine"],
  ["chipset", "hypervisor"],
  ["firmware", "vmbus"],
  ["services"],
  ["checkpoint"],
  ["vm"],
  ["control"],
  ["host"],
  ["cli", "server", "console", "certify", "fleet"],
] as const;
const rank = new Map<string, number>(ORDER.flatMap((names, i) => names.map((n) => [n, i] as [string, number])));
/** Folders that must run in a page as they are. */
const PLATFORM_FREE = new Set(ORDER.slice(0, 8).flat() as string[]);
const BANNED_NAMES = /(^|[/-])(utils?|common|helpers|misc|manager)\.ts$/;
const MAX_LINES = 800;

export interface Finding {
  readonly file: string;
  readonly what: string;
}

export function checkFile(file: string, text: string): Finding[] {
  const findings: Finding[] = [];
  const say = (what: string): void => void findings.push({ file, what });
  const lines = text.split("\n").length;
  if (lines > MAX_LINES) say(`${lines} lines; ${MAX_LINES} at most`);
  if (BANNED_NAMES.test(file)) say("a name that says nothing");
  if (!file.startsWith("src/") || file.includes("/runtime/assembly/")) return findings;
  const folder = file.split("/")[1]!;
  const isTest = file.endsWith(".test.ts");
  if (!rank.has(folder)) say(`the folder ${folder} has no place in the import rule`);
  for (const [, target] of text.matchAll(/(?:from|import)\s+"([^"]+)"/g)) {
    if (target === undefined) continue;
    if (target.startsWith("node:")) {
      if (PLATFORM_FREE.has(folder) && !isTest) say(`imports ${target}`);
      continue;
    }
    if (!target.startsWith(".")) continue;
    const to = normalize(join(dirname(file), target));
    if (!to.startsWith("src/")) {
      if (!isTest) say(`imports ${to} from outside src`);
      continue;
    }
    const other = to.split("/")[1]!;
    if (other !== folder && !isTest && (rank.get(other) ?? 99) >= rank.get(folder)!) say(`${folder} imports ${other}`);
  }
  if (PLATFORM_FREE.has(folder) && !isTest && /\b(Date\.now|Math\.random|setTimeout|setInterval)\s*\(/.test(text))
    say("time or chance that was not injected");
  return findings;
}

/** Every finding in the repository. */
export function checkRepository(): Finding[] {
  return ["src", "tests", "bench", "scripts"]
    .flatMap(sources)
    .filter((f) => !f.endsWith("assembly/layout.ts"))
    .flatMap((f) => checkFile(f, readFileSync(join(root, f), "utf8")));
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((f) => /\.(ts|mjs)$/.test(f) && !f.endsWith(".d.ts"))
    .map((f) => join(folder, f));
}

if (process.argv[1] !== undefined && relative(import.meta.filename, process.argv[1]) === "") {
  const findings = checkRepository();
  for (const { file, what } of findings) console.error(`${file}: ${what}`);
  console.log(findings.length === 0 ? "the repository's rules hold" : `${findings.length} findings`);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
