/**
 * Every x87 encoding against the FPU of this machine: all modes, all classes of operands, stack faults, unmasked exceptions, page
 * faults. ENLIGHTEN_X87_CASES=6000 makes a long run, ENLIGHTEN_SEED another one, ENLIGHTEN_X87_ONLY="d9 f" one of some encodings.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Batch, CASE_BYTES, EngineRunner, Field, nativeProgram, runNative, WINDOW } from "./native-runner.js";
import { Random } from "./values.js";
import {
  distance,
  type Encoding,
  isExact,
  isStore,
  isTiny,
  isTranscendental,
  isWideStore,
  outOfDomain,
  undefinedBits,
} from "./x87-undefined.js";
import { type Extended, extended, fillOperand, type MemoryFormat, nearOne, random64, related } from "./x87-values.js";

const LONG = Number(process.env.ENLIGHTEN_X87_CASES ?? 0);
const SEED = Number(process.env.ENLIGHTEN_SEED ?? 1);
const CASES = LONG > 0 ? LONG : 500;

interface NamedEncoding extends Encoding {
  readonly name: string;
}
const MEMORY_FORMATS: readonly (readonly MemoryFormat[])[] = [
  Array<MemoryFormat>(8).fill("single"),
  ["single", "single", "single", "single", "other", "other", "other", "other"],
  Array<MemoryFormat>(8).fill("int32"),
  ["int32", "int32", "int32", "int32", "other", "extended", "other", "extended"],
  Array<MemoryFormat>(8).fill("double"),
  ["double", "int64", "double", "double", "other", "other", "other", "other"],
  Array<MemoryFormat>(8).fill("int16"),
  ["int16", "int16", "int16", "int16", "bcd", "int64", "bcd", "int64"],
];
const hex = (x: number | bigint): string => x.toString(16);
const encodings: NamedEncoding[] = [];
for (let op = 0xd8; op <= 0xdf; op++) {
  for (let reg = 0; reg < 8; reg++) encodings.push({ op, modrm: 0x07 | (reg << 3), name: `${hex(op)} /${reg}` });
  for (let modrm = 0xc0; modrm < 0x100; modrm++) encodings.push({ op, modrm, name: `${hex(op)} ${hex(modrm)}` });
}
/** Fills the x87 state of the case. */
function fillState(random: Random, batch: Batch, at: number, e: Encoding): void {
  const { view } = batch;
  let fcw = 0x37f;
  if (random.below(4) !== 0) fcw = 0x7f | (random.below(4) << 10) | ([0, 2, 3][random.below(3)]! << 8);
  if (random.below(6) === 0) fcw &= ~random.below(64);
  const top = random.below(8);
  let fsw = (top << 11) | (random.u32() & 0x4700);
  if (random.below(3) === 0) fsw |= random.below(64) & (random.below(8) === 0 ? 0x7f : fcw);
  if ((fsw & ~fcw & 0x3f) !== 0) fsw |= 0x8080;
  let ftw = 0xff;
  // the instruction may push: leave ST(7) empty often
  if (random.below(2) === 0) ftw &= ~(1 << ((top + 7) & 7));
  if (random.below(12) === 0) ftw &= random.u32();
  const values: Extended[] = [];
  for (let i = 0; i < 8; i++)
    values.push(i > 0 && random.below(3) === 0 ? related(random, values[0]!) : extended(random));
  if (isTranscendental(e))
    for (let i = 0; i < 2; i++)
      if (random.below(4) !== 0) values[i] = nearOne(random, [1, 3, 20, 66][random.below(4)]!);
  // scale factors and remainders of a sensible size
  if (e.op === 0xd9 && e.modrm >= 0xf5 && random.below(3) === 0)
    values[1] = [0x3fff + random.below(20) - 2 + (random.below(2) << 15), (1n << 63n) | random64(random)];
  view.setUint16(at + Field.fcw, fcw, true);
  view.setUint16(at + Field.fsw, fsw, true);
  view.setUint8(at + Field.ftw, ftw);
  values.forEach(([high, low], i) => {
    view.setBigUint64(at + Field.st + i * 16, low, true);
    view.setUint16(at + Field.st + i * 16 + 8, high, true);
  });
  view.setUint32(at + Field.rflags, 2 | (random.u32() & 0x8d5), true);
  view.setUint32(at + Field.gpr, random.u32(), true);
}
function addCases(batch: Batch, random: Random, e: NamedEncoding, count: number): void {
  const prefix = [[], [0x66], [0x48]];
  for (let n = 0; n < count; n++) {
    const environment =
      e.modrm < 0xc0 &&
      ((e.op === 0xd9 && (e.modrm >> 3) % 2 === 0 && e.modrm > 0x20) || (e.op === 0xdd && e.modrm > 0x20));
    const code = [...prefix[environment ? Math.floor((n * 3) / count) : 0]!, e.op, e.modrm];
    const at = batch.add(code, `${e.name} #${n}`);
    fillState(random, batch, at, e);
    if (e.modrm >= 0xc0) continue;
    const { view } = batch;
    for (let i = 0; i < 256; i += 4) view.setUint32(at + Field.window + i, random.u32(), true);
    // some operands reach into the page behind the window, which is absent
    const offset = random.below(40) === 0 ? 240 + random.below(16) : random.below(40);
    view.setUint32(at + Field.gpr + 7 * 8, WINDOW + offset, true);
    const format = MEMORY_FORMATS[e.op - 0xd8]![e.modrm >> 3]!;
    if (offset > 200) continue;
    const operand = at + Field.window + offset;
    fillOperand(random, format, view, operand);
    // an environment with all exceptions masked most of the time
    if (environment && random.below(2) === 0) view.setUint8(operand, 0x7f);
    // an operand that has to do with ST(0)
    if (format === "extended" && random.below(2) === 0) {
      view.setBigUint64(operand, view.getBigUint64(at + Field.st, true), true);
    }
  }
}

const show = (view: DataView, at: number): string =>
  `${hex(view.getUint16(at + 8, true)).padStart(4, "0")}:${hex(view.getBigUint64(at, true)).padStart(16, "0")}`;

let largest = 0n;
let largestAt = "";
const PAGE_FAULT = 14;
function difference(before: DataView, native: DataView, ours: DataView, at: number, e: NamedEncoding): string {
  const trap = native.getInt32(at + Field.trap, true);
  // a store that an unmasked exception suppresses: Intel's processors (and we) do not look at the address then, AMD's do
  const suppressed = isStore(e) && (ours.getUint16(at + Field.fsw, true) & 0x80) !== 0;
  if (suppressed && trap === PAGE_FAULT && ours.getInt32(at + Field.trap, true) < 0) return "";
  if (trap !== ours.getInt32(at + Field.trap, true)) return `trap ${ours.getInt32(at + Field.trap, true)}, not ${trap}`;
  const word = (name: string, offset: number, mask = 0xffff): string => {
    const a = native.getUint16(at + offset, true) & mask;
    const b = ours.getUint16(at + offset, true) & mask;
    return a === b ? "" : `${name} ${hex(b)}, not ${hex(a)}`;
  };
  const open = native.getUint16(at + Field.fsw, true) & ~native.getUint16(at + Field.fcw, true) & 0x3f;
  if ((e.op === 0xd9 || e.op === 0xdd) && e.modrm === 7 && open & 2) return "";
  const st0 = before.getUint16(at + Field.st + 8, true);
  if (outOfDomain(e, st0)) return "";
  const undefinedHere = undefinedBits(e, open);
  let skip = undefinedHere.fsw;
  const approximate = isTranscendental(e);
  if (approximate) skip |= 0x200;
  if (approximate && isExact(e, st0, before.getBigUint64(at + Field.st, true))) skip |= 0x80b0;
  if (approximate && isTiny(native, at + Field.st)) skip |= 0x8090;
  const first =
    word("fsw", Field.fsw, 0xffff & ~skip) ||
    word("fcw", Field.fcw) ||
    word("tags", Field.ftw, 0xff) ||
    word("flags", Field.rflags, 0x8d5 & ~undefinedHere.flags) ||
    word("ax", Field.gpr) ||
    ((native.getUint16(at + Field.fsw, true) & 0x80) === 0
      ? ""
      : word("fop", Field.fop, 0x7ff) ||
        word("fip", Field.fip) ||
        word("fip+2", Field.fip + 2) ||
        word("fdp", Field.fdp) ||
        word("fdp+2", Field.fdp + 2));
  if (first !== "") return first;
  for (let i = 0; i < 8; i++) {
    const p = at + Field.st + i * 16;
    const h1 = native.getUint16(p + 8, true),
      h2 = ours.getUint16(p + 8, true);
    const l1 = native.getBigUint64(p, true),
      l2 = ours.getBigUint64(p, true);
    if (h1 === h2 && l1 === l2) continue;
    if (approximate && i < 2 && (h1 & 0x7fff) !== 0x7fff && (h2 & 0x7fff) !== 0x7fff) {
      const d = distance(h1, l1, h2, l2);
      if (d > largest) {
        largest = d;
        largestAt = e.name;
      }
      if (d <= 1n) continue;
    }
    return `st${i} ${show(ours, p)}, not ${show(native, p)}`;
  }
  if (trap === PAGE_FAULT && isWideStore(e)) return "";
  for (let i = 0; i < 256; i++) {
    const a = native.getUint8(at + Field.window + i);
    const b = ours.getUint8(at + Field.window + i);
    if (a !== b) return `memory+${i} ${hex(b)}, not ${hex(a)}`;
  }
  return "";
}

test("x87: every encoding as the FPU of this machine does it", {
  skip: nativeProgram() === undefined ? "no gcc or no x86-64" : false,
}, () => {
  const random = new Random(SEED);
  const engine = new EngineRunner();
  const failures = new Map<string, string[]>();
  let cases = 0;
  const only = process.env.ENLIGHTEN_X87_ONLY;
  const list = encodings.filter((e) => only === undefined || only.split(",").some((o) => e.name.startsWith(o)));
  const tested = new Set<string>();
  for (let from = 0; from < list.length; from += 32) {
    const batch = new Batch();
    const owners: NamedEncoding[] = [];
    for (const e of list.slice(from, from + 32)) {
      const before = batch.count;
      addCases(batch, random, e, e.modrm < 0xc0 || e.op === 0xd9 || e.modrm % 8 < 2 ? CASES : Math.ceil(CASES / 8));
      for (let i = before; i < batch.count; i++) owners.push(e);
    }
    const nativeBytes = runNative(batch);
    const oursBytes = engine.run(batch);
    const native = new DataView(nativeBytes.buffer, nativeBytes.byteOffset);
    const ours = new DataView(oursBytes.buffer, oursBytes.byteOffset);
    for (let i = 0; i < batch.count; i++) {
      const e = owners[i]!;
      const at = i * CASE_BYTES;
      cases++;
      if (native.getInt32(at + Field.trap, true) !== 6) tested.add(e.name);
      const d = difference(batch.view, native, ours, at, e);
      if (d === "") continue;
      const { view } = batch;
      const state = `fcw ${hex(view.getUint16(at + Field.fcw, true))} fsw ${hex(view.getUint16(at + Field.fsw, true))} ftw ${hex(view.getUint8(at + Field.ftw))} st0 ${show(view, at + Field.st)} st1 ${show(view, at + Field.st + 16)} st${e.modrm & 7} ${show(view, at + Field.st + (e.modrm & 7) * 16)}`;
      const list = failures.get(e.name) ?? [];
      list.push(
        `${batch.labels[i]}: ${d}   [${state}]${e.modrm < 0xc0 ? ` memory ${show(view, at + Field.window + Number(view.getBigUint64(at + Field.gpr + 56, true)) - WINDOW)}` : ""}`,
      );
      failures.set(e.name, list);
    }
  }
  console.log(
    `x87: ${encodings.length} encodings, ${tested.size} of them defined here and tested, ${cases} cases; transcendentals differ by at most ${largest} ulp (${largestAt})`,
  );
  const total = [...failures.values()].reduce((n, l) => n + l.length, 0);
  const lines = [...failures].map(
    ([name, l]) =>
      `${name}: ${l.length} differ\n    ${l.slice(0, Number(process.env.ENLIGHTEN_X87_SHOW ?? 4)).join("\n    ")}`,
  );
  assert.equal(total, 0, `${total} of ${cases} cases differ\n${lines.join("\n")}`);
});
