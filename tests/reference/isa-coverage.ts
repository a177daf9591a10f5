/**
 * Which test has which row of the instruction table: derived from the rows, by the same predicates that the tests select by.
 * What a user program cannot do is covered by tests of bare machines; their names are checked against the tests' text.
 */
import type { Row } from "../../src/cpu/isa/table.js";
import type { Parts } from "./instruction-bytes.js";
import { NOT_NATIVE } from "./random-rules.js";

/** Procedures of the runtime that integer.test runs: those that need no privilege, port, or time. */
const TESTED_PROCEDURES = new Set([
  "pushf",
  "popf",
  "enter",
  "loop",
  "loope",
  "loopne",
  "jcxz",
  "xlat",
  "cmpxchg8b",
  "crc32",
  "movsb",
  "movs",
  "cmpsb",
  "cmps",
  "stosb",
  "stos",
  "lodsb",
  "lods",
  "scasb",
  "scas",
]);
export const isMmxRow = (row: Row): boolean => row.operands.some((o) => /^[PQ]/.test(o)) || row.mnemonic === "emms";
export const isVectorRow = (row: Row): boolean => (row.options.sse === true && row.form !== "system") || isMmxRow(row);
export const isX87Row = (row: Row): boolean => row.form === "x87" || row.mnemonic === "fwait";

/** @returns why integer.test leaves the row out, undefined = it has it */
export function notInIntegerTest(row: Row): string | undefined {
  if (row.options.not64) return "not in 64-bit mode: random-bytes.test, bare machines";
  if (row.options.sse || row.operands.some((o) => /^[VW]/.test(o)) || isMmxRow(row)) return "vector: sse.test";
  if (isX87Row(row)) return "x87.test";
  if (row.options.selector !== undefined && !TESTED_PROCEDURES.has(row.mnemonic))
    return "system: random-bytes.test, bare machines";
  if (row.map === 1 && row.opcode === 0x0d) return "PREFETCHW: its register form is #UD on AMD, a NOP on Intel";
  if (/^cl(flush|wb)/.test(row.mnemonic)) return "no effect to see but faults: random-bytes.test";
  return undefined;
}

/** The row as the rules of the random test see it. */
function partsOfRow(row: Row): Parts {
  return {
    kind: row.map > 3 ? "vex" : "legacy",
    opsize: row.prefix === 0x66,
    lock: false,
    repeat: row.prefix === 0xf2 || row.prefix === 0xf3 ? row.prefix : 0,
    rex: 0,
    map: row.map & 3,
    opcode: row.opcode,
    modrm: (row.mod === 0 ? 0 : 0xc0) | ((row.reg ?? 0) << 3) | (row.rm ?? 0),
  };
}
/** Whether the random test compares the row with a real processor. */
export const inRandomTest = (row: Row): boolean => !NOT_NATIVE.some((rule) => rule.matches(partsOfRow(row)));

/** Text of a test by its path below tests/, where a word of it shows that the instruction is run there. */
interface Evidence {
  readonly file: string;
  readonly names: readonly string[];
}
/** What has an effect at level 0 only, or is not run by the real processor (NOT_NATIVE), by the name of `nameOf`. */
export const WITHOUT_HARDWARE: readonly Evidence[] = [
  {
    file: "bare/segments.test.ts",
    names: ["sgdt", "sidt", "lgdt", "sldt", "str", "lldt", "ltr", "smsw"],
  },
  {
    file: "bare/mode-switch.test.ts",
    names: ["lidt", "lmsw", "clts", "invlpg", "invpcid", "wbinvd", "rdmsr", "wrmsr", "mov cr"],
  },
  { file: "bare/breakpoints.test.ts", names: ["mov dr"] },
  { file: "bare/single-step.test.ts", names: ["cli", "sti"] },
  { file: "bare/system-calls.test.ts", names: ["sysret", "sysenter", "sysexit", "swapgs"] },
  { file: "bare/exceptions.test.ts", names: ["hlt"] },
  { file: "bare/protected-mode.test.ts", names: ["pop ss"] },
  { file: "bare/ports.test.ts", names: ["in", "out"] },
  {
    file: "bare/privileged-instructions.test.ts",
    names: ["clac", "stac", "xsetbv", "monitor", "mwait", "vmcall", "invd", "rdpmc", "insb", "ins", "outsb", "outs"],
  },
  { file: "reference/x87-state.test.ts", names: ["xsave", "xrstor", "xsaveopt", "xsavec"] },
];
/** Its mnemonic; of a MOV with system registers also their kind. */
export function nameOf({ mnemonic, operands }: Row): string {
  if (mnemonic !== "mov") return mnemonic;
  const kind = operands.find((o) => o[0] === "C" || o[0] === "D")?.[0];
  return kind === undefined ? mnemonic : `mov ${kind === "C" ? "cr" : "dr"}`;
}
/** The word of the evidence that has to be in the test's text. */
export const wordOf = (name: string): string => ({ ins: "insd", outs: "outsd", xsaveopt: "xsave" })[name] ?? name;

export const GROUPS = ["integer", "system", "x87", "mmx", "sse"] as const;
export const WAYS = ["own test, hardware", "random test, hardware", "bare machine"] as const;
export interface Coverage {
  readonly group: (typeof GROUPS)[number];
  readonly way: (typeof WAYS)[number];
  readonly by: string;
}
function groupOf(row: Row): Coverage["group"] {
  if (isX87Row(row)) return "x87";
  if (isVectorRow(row)) return row.options.sse ? "sse" : "mmx";
  const isSystem = row.form === "system" || (row.form === "string" && /^(in|out)s/.test(row.mnemonic));
  return isSystem && !TESTED_PROCEDURES.has(row.mnemonic) && row.mnemonic !== "bound" ? "system" : "integer";
}
/** @returns undefined where no test has the row and nothing explains it */
export function coverageOf(row: Row): Coverage | undefined {
  const group = groupOf(row);
  if (notInIntegerTest(row) === undefined) return { group, way: "own test, hardware", by: "reference/integer.test.ts" };
  if (isVectorRow(row)) return { group, way: "own test, hardware", by: "reference/sse.test.ts" };
  if (row.form === "x87") return { group, way: "own test, hardware", by: "reference/x87.test.ts" };
  if (row.mnemonic === "fwait") return { group, way: "own test, hardware", by: "reference/x87-state.test.ts" };
  const evidence = WITHOUT_HARDWARE.find((e) => e.names.includes(nameOf(row)));
  if (evidence !== undefined) return { group, way: "bare machine", by: evidence.file };
  if (inRandomTest(row)) return { group, way: "random test, hardware", by: "reference/random-bytes.test.ts" };
  return undefined;
}

/** Lines of the table: rows by group and by the way in which they are tested. */
export function coverageTable(rows: readonly Row[]): string[] {
  const cells = (line: readonly (string | number)[]): string =>
    line
      .map((cell, i) =>
        String(cell)
          .padStart(i === 0 ? 0 : 22)
          .padEnd(i === 0 ? 9 : 0),
      )
      .join("");
  const covered = rows.map(coverageOf);
  const of = (group: string | undefined, way: string | undefined): number =>
    rows.filter((row, i) => {
      const c = covered[i];
      return (group === undefined || groupOf(row) === group) && (way === undefined || c?.way === way);
    }).length;
  const lines = [
    ["rows", "defined", ...WAYS, "none"],
    ...[...GROUPS, undefined].map((group) => {
      const ways = WAYS.map((way) => of(group, way));
      const all = of(group, undefined);
      return [group ?? "all", all, ...ways, all - ways.reduce((a, b) => a + b)];
    }),
  ];
  return lines.map(cells);
}
