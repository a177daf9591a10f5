/**
 * The interpreter's forms: (semantics, width, operand kinds), numbered. Made from the table, the same at every start, so that
 * the decoder's numbers and the generated module agree without a file between them.
 */
import "./rows-integer.js";
import "./rows-vector.js";
import { recordFacts } from "./facts.js";
import { cmpJcc, FUSED_CONDITIONS } from "./integer.js";
import type { Definition, Width } from "./sem.js";
import { SEQUENCES } from "./sequences.js";
import { special } from "./special.js";
import { type Row, rows } from "./table.js";

/** r = register, m = base + displacement, x = base + index * scale + displacement, i = immediate, c = CL. */
export type OperandKind = "r" | "m" | "x" | "i" | "c";
export interface FormOperand {
  readonly kind: OperandKind;
  readonly width: number;
}
export interface Form {
  readonly name: string;
  readonly width: Width;
  readonly operands: readonly FormOperand[];
  readonly define: Definition;
  readonly hot: boolean;
  /** Variant that leaves the flags alone: they are overwritten before anything can see them. */
  readonly noFlags: boolean;
  /** A compare with its jump: the jump's distance is in the upper half of the immediate. */
  readonly fused: boolean;
  readonly facts: Facts;
  /** Forms that one arm runs in a row, for a sequence. */
  readonly parts?: readonly Form[] | undefined;
  id: number;
}
/** What a definition does, for the decoder's flag liveness. */
export interface Facts {
  readonly readsFlags: boolean;
  /** Writes all six arithmetic flags whatever happens. */
  readonly writesFlags: boolean;
  /** Writes any of them. */
  readonly touchesFlags: boolean;
  readonly canFault: boolean;
  readonly canLeave: boolean;
  /** Is done by the runtime, which is given the record. */
  readonly procedure: boolean;
  /** To the guest's memory. */
  readonly stores: boolean;
}

const byKey = new Map<string, Form>();
let list: Form[] | undefined;

export const sizeBits = (letter: string, width: Width): number => {
  switch (letter) {
    case "b":
      return 8;
    case "w":
      return 16;
    case "d":
      return 32;
    case "q":
      return 64;
    case "x":
      return 128;
    case "y":
      return width === 64 ? 64 : 32;
    case "z":
      return width === 16 ? 16 : 32;
    default:
      return width;
  }
};

/** Kinds of the row's operands, E and W as `shape`. Undefined = the operand has no place in the form. */
export function formOperands(row: Row, width: Width, shape: "r" | "m" | "x"): FormOperand[] {
  const out: FormOperand[] = [];
  for (const o of row.operands) {
    const w = sizeBits(o[1] ?? "v", width);
    if (o === "AL") out.push({ kind: "r", width: 8 });
    else if (o === "rAX") out.push({ kind: "r", width });
    else if (o === "CL") out.push({ kind: "c", width: 8 });
    else if (o === "1") out.push({ kind: "i", width });
    else if (o === "DX" || o === "Ap") continue;
    else
      switch (o[0]) {
        case "E":
        case "W":
        case "Q":
          out.push({ kind: shape, width: w });
          break;
        case "M":
        case "O":
          out.push({ kind: shape === "r" ? "m" : shape, width: w });
          break;
        case "I":
          out.push({ kind: "i", width });
          break;
        case "J":
          break;
        default:
          out.push({ kind: "r", width: w });
      }
  }
  return out;
}

const widthsOfRow: (readonly Width[] | undefined)[] = [];
/** Operation widths that the row exists in. */
export function operationWidths(row: Row): readonly Width[] {
  return (widthsOfRow[row.index] ??= findWidths(row));
}
function findWidths(row: Row): readonly Width[] {
  if (row.options.width !== undefined) return [row.options.width];
  if (row.options.rexW || (row.options.selector === undefined && row.operands.some((o) => o[1] === "y")))
    return [32, 64];
  const first = row.operands.find((o) => !/^(DX|Ib|Ibs|Iw|CL|1)$/.test(o)) ?? "v";
  if (first === "AL") return [8];
  const size = first === "rAX" || first === "M" ? "v" : (first[1] ?? "v");
  switch (size) {
    case "b":
      return row.operands.some((o) => /^(M|G|E)b$/.test(o)) && row.form === "system" ? [16, 32, 64] : [8];
    case "w":
      return [16, 32, 64].includes(16) && row.form === "system" ? [16, 32, 64] : [16];
    case "d":
      return [32];
    case "q":
      return [64];
    case "x":
      return [64];
    default:
      return row.options.d64 && row.options.only64 ? [16, 64] : [16, 32, 64];
  }
}

function key(name: string, width: number, operands: readonly FormOperand[], noFlags: boolean): string {
  return `${name}/${width}/${operands.map((o) => o.kind + o.width).join()}${noFlags ? "/nf" : ""}`;
}

type Made = Omit<Form, "facts" | "id">;
class TableForm implements Form {
  id = -1;
  readonly name: string;
  readonly width: Width;
  readonly operands: readonly FormOperand[];
  readonly define: Definition;
  readonly hot: boolean;
  readonly noFlags: boolean;
  readonly fused: boolean;
  readonly parts: readonly Form[] | undefined;
  #facts: Facts | undefined;
  /** What the functions below found last: the variant that leaves the flags alone (null: none), jumps joined to it, sequences. */
  bare: Form | null | undefined;
  /** "cmp" and "test" can be joined to a jump. */
  readonly compares: string;
  joined: readonly (Form | undefined)[] | undefined;
  sequences: Form[] | undefined;
  constructor(m: Made) {
    this.name = m.name;
    this.width = m.width;
    this.operands = m.operands;
    this.define = m.define;
    this.hot = m.hot;
    this.noFlags = m.noFlags;
    this.fused = m.fused;
    this.parts = m.parts;
    this.compares = m.name.startsWith("cmp/") ? "cmp" : m.name.startsWith("test/") ? "test" : "";
  }
  /** Found out when they are asked for: a thread uses few of all forms, and this is half of what a start takes. */
  get facts(): Facts {
    this.#facts ??= recordFacts(this);
    return this.#facts;
  }
}

function addForm(
  name: string,
  width: Width,
  operands: readonly FormOperand[],
  define: Definition,
  noFlags = false,
  fused = false,
): Form {
  const k = key(name, width, operands, noFlags);
  const known = byKey.get(k);
  if (known !== undefined) return known;
  const hot = isHot(name, width, operands, noFlags, fused);
  const form = new TableForm({ name: k, width, operands, define, hot, noFlags, fused });
  byKey.set(k, form);
  list!.push(form);
  return form;
}

const HOT_RR = new Set([
  "add",
  "sub",
  "and",
  "or",
  "xor",
  "cmp",
  "test",
  "mov",
  "imul2",
  "movzx",
  "movsx",
  "adc",
  "sbb",
]);
/** Vector forms, by the operand kinds that are hot. */
const HOT_VECTOR: Readonly<Record<string, readonly string[]>> = {
  vmov: ["rm", "mr", "rx", "xr"],
  vmova: ["rr", "rm", "mr"],
  vload: ["rm", "rx"],
  movsd: ["mr"],
  addsd: ["rr"],
  subsd: ["rr"],
  mulsd: ["rr", "rm"],
  pxor: ["rr"],
  pcmpeqb: ["rr"],
  pmovmskb: ["rr"],
  movdFrom: ["rr"],
  movdTo: ["rm"],
  pmuludq: ["rr", "rm"],
  pshufd: ["rri"],
  psrlq: ["ri"],
  unpackLow4: ["rr"],
  paddd: ["rr"],
};
const HOT_SHIFT = new Set(["shl", "shr", "sar", "rol", "ror"]);
function isHot(
  name: string,
  width: number,
  operands: readonly FormOperand[],
  noFlags: boolean,
  fused: boolean,
): boolean {
  const kinds = operands.map((o) => o.kind).join("");
  if (fused) return true;
  if (
    [
      "jmp",
      "call",
      "ret",
      "callIndirect",
      "jmpIndirect",
      "nop",
      "enlighten.redispatch",
      "enlighten.poisoned",
      "enlighten.attend",
      "enlighten.region",
      "enlighten.address",
    ].includes(name) &&
    width === 64
  )
    return kinds !== "x";
  if (/^j[a-z]+$/.test(name) && operands.length === 0) return true;
  if ((name === "push" || name === "pop") && width === 64 && kinds === "r") return true;
  if (width === 16) return false;
  if (HOT_VECTOR[name]?.includes(kinds)) return true;
  const wide = width >= 32;
  switch (kinds) {
    case "rr":
      if (HOT_RR.has(name)) return wide || !noFlags;
      return wide && /^cmov(z|nz|b|ae|a|be|l|ge|s|ns|g|le)$/.test(name);
    case "ri":
      return (HOT_RR.has(name) || (wide && HOT_SHIFT.has(name))) && (wide || !noFlags);
    case "rm":
      return HOT_RR.has(name) || (name === "lea" && wide);
    case "rx":
      return ["mov", "lea", "movzx", "movsx"].includes(name) || (["add", "cmp", "xor"].includes(name) && wide);
    case "mr":
      return ["mov", "cmp"].includes(name) || (name === "add" && wide);
    case "xr":
      return name === "mov";
    case "xi":
      return name === "mov" || name === "cmp" || (name === "add" && wide);
    case "mi":
      return ["mov", "cmp", "test"].includes(name) || (name === "add" && wide);
    case "r":
      return (["inc", "dec", "neg", "not"].includes(name) && wide) || /^set(z|nz|b|a|ae|be|l|g)$/.test(name);
    case "":
      return name === "cwd" || name === "cbw";
    case "m":
      return false;
    default:
      return false;
  }
}

/** All forms; hot ones have the ids 0..hot-1, in order. */
export function forms(): readonly Form[] {
  if (list !== undefined) return list;
  list = [];
  for (const row of rows) {
    for (const width of operationWidths(row)) {
      for (const shape of shapes(row)) formOf(row, width, shape, false);
    }
  }
  for (const compare of ["cmp", "test"] as const)
    for (const cc of FUSED_CONDITIONS)
      for (const width of [8, 32, 64] as const)
        for (const kinds of ["rr", "ri"]) {
          if (compare === "test" && (cc === 2 || cc === 3 || cc === 6 || cc === 7)) continue;
          const operands = [...kinds].map((kind) => ({ kind: kind as OperandKind, width }));
          addForm(`${compare}.j${cc}`, width, operands, cmpJcc(compare, cc), false, true);
        }
  for (const width of [8, 16, 32, 64] as const)
    for (const kind of ["r", "m", "x"] as const) addForm("enlighten.touch", width, [{ kind, width }], touch);
  for (const s of special) addForm(s.name, s.width, s.operands, s.define);
  for (const names of SEQUENCES) {
    const parts = names.map((n) => byKey.get(n));
    if (parts.some((p) => p === undefined || !p.hot))
      throw new Error(`sequence of forms that are not hot: ${names.join(" ; ")}`);
    addSequence(parts as Form[]);
  }
  const ordered = [...list.filter((f) => f.hot), ...list.filter((f) => !f.hot)];
  ordered.forEach((f, id) => {
    f.id = id;
  });
  list = ordered;
  return list;
}

/** Longest first: a sequence belongs to the form that it begins with. */
function addSequence(parts: readonly Form[]): void {
  const first = parts[0]! as TableForm;
  const { width, operands, define, noFlags, fused } = first;
  const name = parts.map((p) => p.name).join(" ; ");
  const form = new TableForm({ name, width, operands, define, hot: true, noFlags, fused, parts });
  list!.push(form);
  if (first.sequences === undefined) first.sequences = [form];
  else first.sequences.push(form);
}
/** The longest sequence that the forms from `at` on begin with. */
export function matchSequence(all: readonly (Form | undefined)[], at: number): Form | undefined {
  const candidates = (all[at] as TableForm).sequences;
  if (candidates === undefined) return undefined;
  for (const sequence of candidates) {
    const parts = sequence.parts!;
    let same = 1;
    while (same < parts.length && all[at + same] === parts[same]) same++;
    if (same === parts.length) return sequence;
  }
  return undefined;
}

/** Of the forms' names in order: a module that was generated from another list must not run. */
export function formsFingerprint(): string {
  let h = 0x811c9dc5;
  for (const form of forms()) {
    const { name } = form;
    for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
    h ^= form.hot ? 1 : 2;
  }
  return (h >>> 0).toString(16);
}

export function shapes(row: Row): readonly ("r" | "m" | "x")[] {
  const hasE = row.operands.some((o) => /^[EWQ]/.test(o));
  const hasM = row.operands.some((o) => o[0] === "M" || o[0] === "O");
  if (hasM) return ["m", "x"];
  if (!hasE) return ["r"];
  return row.mod === 3 ? ["r"] : row.mod === 0 ? ["m", "x"] : ["r", "m", "x"];
}

/** Procedures of the runtime read the record themselves: one form for all their operands. */
const isProcedure = (row: Row): boolean => row.options.selector !== undefined;

function formOf(row: Row, width: Width, shape: "r" | "m" | "x", noFlags: boolean): Form {
  if (isProcedure(row)) return addForm(row.form, 64, [], row.define);
  const form = addForm(row.form, width, formOperands(row, width, shape), row.define);
  if (form.hot && form.facts.touchesFlags) addForm(row.form, width, formOperands(row, width, shape), row.define, true);
  if (!noFlags) return form;
  return byKey.get(key(row.form, width, form.operands, true)) ?? form;
}

const cache: (Form | undefined)[] = [];
/** The form of a decoded instruction. */
export function lookupForm(row: Row, width: Width, shape: "r" | "m" | "x"): Form {
  const k = row.index * 16 + (width >> 4) * 3 + (shape === "r" ? 0 : shape === "m" ? 1 : 2);
  let form = cache[k];
  if (form === undefined) {
    forms();
    form = isProcedure(row)
      ? byKey.get(key(row.form, 64, [], false))
      : byKey.get(key(row.form, width, formOperands(row, width, shape), false));
    if (form === undefined) throw new Error(`no form for ${row.mnemonic} ${width} ${shape}`);
    cache[k] = form;
  }
  return form;
}
export function withoutFlags(form: Form): Form | undefined {
  const known = form as TableForm;
  if (known.bare === undefined) known.bare = byKey.get(`${form.name}/nf`) ?? null;
  return known.bare ?? undefined;
}
/** The form that is `compare` with the jump on `cc` behind it; undefined where there is none. */
export function fusedForm(compare: Form, cc: number): Form | undefined {
  const known = compare as TableForm;
  if (known.joined === undefined) {
    const operands = compare.operands.map((o) => o.kind + o.width).join();
    known.joined = Array.from({ length: 16 }, (_, c) =>
      byKey.get(`${known.compares}.j${c}/${compare.width}/${operands}`),
    );
  }
  return known.joined[cc];
}
/** What a shift by 0 is: its operand read and written, the flags left alone. */
const touch: Definition = (s) => s.write(0, s.readWrite(0));
export function touchForm(operand: number, shape: "r" | "m" | "x"): Form {
  return byKey.get(key("enlighten.touch", operand, [{ kind: shape, width: operand }], false))!;
}
export function specialForm(name: string): Form {
  forms();
  const s = special.find((x) => x.name === name)!;
  return byKey.get(key(s.name, s.width, s.operands, false))!;
}
