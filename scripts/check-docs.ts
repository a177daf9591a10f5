/**
 * Checks that everything a program sees of the library is described: every name that the entry exports and every type that these
 * lead to, with each member of interfaces and classes. It reads the declarations that the compiler wrote.
 *
 *   npm run check
 *
 * `@opaque` in a type's comment: its members are nobody's business. `@internal` in a member's: it is not for programs.
 */
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const sources = join(import.meta.dirname, "../src");
const ENTRY = join(sources, "host/node/index.d.ts");

interface Declaration {
  readonly name: string;
  readonly doc: string;
  /** Without comments. */
  readonly text: string;
  readonly members: readonly { readonly name: string; readonly doc: string; readonly text: string }[];
}
interface Module {
  readonly declarations: ReadonlyMap<string, Declaration>;
  /** What a name of another module is called there. */
  readonly imports: ReadonlyMap<string, { readonly file: string; readonly name: string }>;
  readonly exports: ReadonlySet<string>;
}

const HEAD = /^(?:export )?(?:declare )?(?:abstract )?(?:interface|class|type|function|const|let) ([A-Za-z_$][\w$]*)/;
const FROM = /^(import|export) (?:type )?\{([^}]*)\} from "(\.[^"]+)";/gm;

/** @param file for paths of what it imports; @param text as the compiler writes declarations: members are indented by four spaces */
export function parseModule(file: string, text: string): Module {
  const declarations = new Map<string, Declaration>();
  const imports = new Map<string, { file: string; name: string }>();
  const exports = new Set<string>();
  for (const [, kind, list = "", from = ""] of text.matchAll(FROM)) {
    const target = join(dirname(file), from.replace(/\.js$/, ".d.ts"));
    for (const item of list.split(",")) {
      const match = /^(?:type )?(\S+)(?: as (\S+))?$/.exec(item.trim());
      if (match === null) continue;
      const [, name = "", as = name] = match;
      imports.set(as, { file: target, name });
      if (kind === "export") exports.add(as);
    }
  }
  for (const { doc, lines } of statements(text.split("\n"), "")) {
    const [, name] = HEAD.exec(lines[0]!) ?? [];
    if (name === undefined) continue;
    const before = declarations.get(name);
    const members = [...statements(lines.slice(1), "    ")]
      .filter(({ lines: [first = ""] }) => !/^ {4}(?:#private|private |protected )/.test(first))
      .map((m) => ({
        name:
          /^ {4}(?:static |readonly |get |set |abstract )*(\[[^\]]+\]|"[^"]+"|[\w$]+)/.exec(m.lines[0]!)?.[1] ?? "()",
        doc: m.doc,
        text: m.lines.join("\n"),
      }));
    // a function may have several
    declarations.set(name, {
      name,
      doc: `${before?.doc ?? ""}${doc}`,
      text: `${before?.text ?? ""}${withoutComments(lines.join("\n"))}`,
      members: /^(?:export )?(?:declare )?(?:abstract )?(?:interface|class)/.test(lines[0]!) ? members : [],
    });
    if (lines[0]!.startsWith("export ")) exports.add(name);
  }
  return { declarations, imports, exports };
}

/** What begins at an indentation, with the comment before it. */
function* statements(
  lines: readonly string[],
  indent: string,
): Generator<{ readonly doc: string; readonly lines: readonly string[] }> {
  let doc = "";
  let isInDoc = false;
  let current: string[] = [];
  for (const line of lines) {
    const isHere = line.startsWith(indent) && /^[^\s})\]|&]/.test(line.slice(indent.length));
    if (isInDoc || (isHere && line.startsWith(`${indent}/**`))) {
      if (!isInDoc) {
        if (current.length > 0) yield { doc, lines: current };
        current = [];
        doc = "";
      }
      doc += `${line}\n`;
      isInDoc = !line.includes("*/");
    } else if (isHere) {
      if (current.length > 0) {
        yield { doc, lines: current };
        doc = "";
      }
      current = [line];
    } else if (current.length > 0) current.push(line);
  }
  if (current.length > 0) yield { doc, lines: current };
}
const withoutComments = (text: string): string => text.replace(/\/\*[\s\S]*?\*\//g, "");

/** @returns "file: name", for what has no comment */
export function undocumented(entry: string, read: (file: string) => string): string[] {
  const modules = new Map<string, Module>();
  const moduleOf = (file: string): Module => {
    let module = modules.get(file);
    if (module === undefined) modules.set(file, (module = parseModule(file, read(file))));
    return module;
  };
  const findings: string[] = [];
  const seen = new Set<string>();
  const visit = (file: string, name: string): void => {
    const module = moduleOf(file);
    const imported = module.imports.get(name);
    if (imported !== undefined) {
      visit(imported.file, imported.name);
      return;
    }
    const declaration = module.declarations.get(name);
    const key = `${file} ${name}`;
    if (declaration === undefined || seen.has(key)) return;
    seen.add(key);
    if (declaration.doc === "") findings.push(`${file}: ${name}`);
    if (declaration.doc.includes("@opaque")) return;
    let { text } = declaration;
    for (const member of declaration.members) {
      if (member.doc === "") findings.push(`${file}: ${name}.${member.name}`);
      // what only we use leads nowhere
      if (member.doc.includes("@internal")) text = text.replace(withoutComments(member.text), "");
    }
    for (const [word] of text.matchAll(/\b[A-Z][\w$]*/g)) if (word !== name) visit(file, word);
  };
  for (const name of moduleOf(entry).exports) visit(entry, name);
  return findings;
}

if (process.argv[1] !== undefined && relative(import.meta.filename, process.argv[1]) === "") {
  const findings = undocumented(ENTRY, (file) => readFileSync(file, "utf8"));
  for (const finding of findings) console.error(`${relative(sources, finding)} has no description`);
  console.log(findings.length === 0 ? "all that the library exports is described" : `${findings.length} findings`);
  process.exitCode = findings.length === 0 ? 0 : 1;
}
