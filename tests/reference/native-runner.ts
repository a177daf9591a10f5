/**
 * Single instructions on the processor of this machine and on ours, from the same state: the oracle of the instruction tests.
 *
 * A case is a record of CASE_BYTES; a batch of them goes through a small C program (compiled at test time) that runs each
 * between a load and a save of the whole user-visible state, and through a bare machine of the engine. Both leave their
 * outcome in a record of the same layout. Code is at CODE; 256 bytes of memory are at WINDOW, and the page behind is absent.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Exit, MXCSR_STRICT, SegIndex, Vp } from "../../src/cpu/layout.js";
import type { RegionTier } from "../../src/cpu/vp/virtual-processor.js";
import { type BareMachine, createBareMachine, regionsAsked } from "../bare/bare-machine.js";

export const CASE_BYTES = 1024;
export const CODE = 0x200000;
export const WINDOW = 0x300f00;
export const WINDOW_BYTES = 256;
/** Offsets in a case: code bytes and their number, vector that it raised (-1 = none), RIP after, registers, FXSAVE image, memory. */
export const Field = {
  code: 0,
  length: 16,
  trap: 20,
  rip: 24,
  gpr: 32,
  rflags: 160,
  error: 168,
  fx: 176,
  fcw: 176,
  fsw: 178,
  ftw: 180,
  fop: 182,
  fip: 184,
  fdp: 192,
  mxcsr: 200,
  st: 208,
  xmm: 336,
  window: 704,
} as const;

/** Cases one behind the other. */
export class Batch {
  bytes = new Uint8Array(CASE_BYTES * 64);
  view = new DataView(this.bytes.buffer);
  count = 0;
  /** What the case is about, for reports. */
  readonly labels: string[] = [];

  /** Adds a case with a plain state (zeros, RFLAGS 2, default MXCSR and x87 control). @returns its offset */
  add(code: ArrayLike<number>, label: string): number {
    const at = this.count * CASE_BYTES;
    if (at === this.bytes.length) {
      const bigger = new Uint8Array(at * 2);
      bigger.set(this.bytes);
      this.bytes = bigger;
      this.view = new DataView(bigger.buffer);
    }
    this.bytes.set(code, at);
    this.view.setUint32(at + Field.length, code.length, true);
    this.view.setUint32(at + Field.rflags, 2, true);
    this.view.setUint16(at + Field.fcw, 0x37f, true);
    this.view.setUint32(at + Field.mxcsr, 0x1f80, true);
    this.labels.push(label);
    this.count++;
    return at;
  }
  outcomes(): Uint8Array {
    return this.bytes.slice(0, this.count * CASE_BYTES);
  }
}

/** Compiles a C program that lies beside this file. @returns its path; undefined where there is no gcc or no x86-64 */
export function compileRunner(name: string, options: readonly string[] = []): string | undefined {
  if (process.arch !== "x64" || process.platform !== "linux") return undefined;
  const source = [
    join(import.meta.dirname, name),
    join(import.meta.dirname, "../../../tests/reference", name),
    join(process.cwd(), "tests/reference", name),
  ].find(existsSync);
  if (source === undefined) return undefined;
  const dir = mkdtempSync(join(tmpdir(), "enlighten-native-"));
  process.on("exit", () => rmSync(dir, { recursive: true, force: true }));
  const out = join(dir, "runner");
  try {
    execFileSync("gcc", ["-O1", "-fpie", "-pie", ...options, "-o", out, source], { stdio: "pipe" });
  } catch {
    return undefined;
  }
  return out;
}

let program: string | undefined;
/** @returns undefined where there is no gcc or the processor is not an x86-64 one */
export function nativeProgram(): string | undefined {
  program ??= compileRunner("native-runner.c");
  return program;
}

export function runNative(batch: Batch): Uint8Array {
  const exe = nativeProgram();
  if (exe === undefined) throw new Error("no native program");
  const input = new Uint8Array(4 + batch.count * CASE_BYTES);
  new DataView(input.buffer).setUint32(0, batch.count, true);
  input.set(batch.bytes.subarray(0, batch.count * CASE_BYTES), 4);
  const result = spawnSync(exe, { input, maxBuffer: 2 ** 31 - 1 });
  if (result.status !== 0)
    throw new Error(
      `native runner: status ${result.status}, signal ${result.signal}, at ${batch.labels[Math.floor(result.stdout.length / CASE_BYTES)]}`,
    );
  return result.stdout;
}

const GDT = 0x4000;
const IDT = 0x5000;
const TSS = 0x6000;
const HANDLERS = 0x7000;
const TRAP_STACK = 0x9000;

/** Our processor, with a handler that halts for every exception. */
export class EngineRunner {
  readonly machine: BareMachine;
  /** Instructions that ran as regions. */
  compiled = 0;
  readonly #strict: number;
  /** @param strict MXCSR's flags are exact (MXCSR_STRICT) */
  constructor(strict = false, regions: boolean | RegionTier = regionsAsked()) {
    this.#strict = strict ? MXCSR_STRICT : 0;
    this.machine = createBareMachine(4 << 20, {}, 1, regions);
    const { vp } = this.machine;
    const ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
    ram.setUint32(GDT + 0x10, 0x0000ffff, true);
    ram.setUint32(GDT + 0x14, 0x00af9b00, true);
    ram.setUint32(GDT + 0x18, 0x0000ffff, true);
    ram.setUint32(GDT + 0x1c, 0x00cf9300, true);
    for (let n = 0; n < 32; n++) {
      const handler = HANDLERS + n * 16;
      vp.ram[handler] = 0xf4;
      ram.setUint32(IDT + n * 16, (0x10 << 16) | handler, true);
      ram.setUint32(IDT + n * 16 + 4, 0x8e01, true); // interrupt gate, stack 1 of the TSS
    }
    ram.setUint32(TSS + 0x24, TRAP_STACK, true);
    ram.setUint32(0x10000 + 0x301 * 8, 0, true); // the page behind the window
    vp.setRegister(Vp.gdtrBase, GDT);
    vp.setRegister(Vp.gdtrLimit, 0x1f);
    vp.setRegister(Vp.idtrBase, IDT);
    vp.setRegister(Vp.idtrLimit, 0x1ff);
    vp.setSegment(SegIndex.tr, { selector: 0x20, attributes: 0x8b, limit: 0x67, base: TSS });
    vp.runtime.resetTlb();
  }
  run(batch: Batch): Uint8Array {
    const { vp } = this.machine;
    const out = batch.outcomes();
    const o = new DataView(out.buffer);
    const ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
    let before = "";
    for (let i = 0; i < batch.count; i++) {
      const at = i * CASE_BYTES;
      const length = o.getUint32(at + Field.length, true);
      const code = out.subarray(at, at + length);
      const text = code.join();
      if (text !== before) {
        vp.ram.set(code, CODE);
        vp.ram[CODE + length] = 0xf4;
        vp.runtime.ramWritten(CODE, 32);
        before = text;
        if (vp.regions?.force(BigInt(CODE)) === true) this.compiled++;
      }
      vp.ram.set(out.subarray(at + Field.window, at + Field.window + WINDOW_BYTES), WINDOW);
      this.#load(out, o, at);
      vp.setRegister(Vp.rip, CODE);
      let reason: number;
      let steps = 0;
      do reason = vp.run(100);
      while (reason === Exit.slice && ++steps < 100);
      if (reason !== Exit.halt) throw new Error(`${batch.labels[i]}: exit ${reason} at ${vp.rip.toString(16)}`);
      const rip = Number(vp.rip);
      const trapped = rip >= HANDLERS && rip < HANDLERS + 0x200;
      this.#save(out, o, at);
      o.setInt32(at + Field.trap, trapped ? (rip - HANDLERS) >> 4 : -1, true);
      o.setBigUint64(at + Field.rip, BigInt(rip - 1), true);
      o.setBigUint64(at + Field.error, 0n, true);
      if (trapped) {
        const sp = Number(vp.register64(Vp.gpr + 32));
        const frame = TRAP_STACK - 40;
        if (sp < frame) o.setBigUint64(at + Field.error, ram.getBigUint64(sp, true), true);
        o.setBigUint64(at + Field.rip, ram.getBigUint64(frame, true), true);
        o.setBigUint64(at + Field.rflags, ram.getBigUint64(frame + 16, true), true);
        o.setBigUint64(at + Field.gpr + 32, ram.getBigUint64(frame + 24, true), true);
      }
      out.set(vp.ram.subarray(WINDOW, WINDOW + WINDOW_BYTES), at + Field.window);
    }
    return out;
  }
  #load(out: Uint8Array, o: DataView, at: number): void {
    const { vp } = this.machine;
    const { base } = vp;
    vp.bytes.set(out.subarray(at + Field.gpr, at + Field.gpr + 128), base + Vp.gpr);
    vp.bytes.set(out.subarray(at + Field.xmm, at + Field.xmm + 256), base + Vp.xmm);
    vp.view.setUint32(base + Vp.mxcsr, o.getUint32(at + Field.mxcsr, true) | this.#strict, true);
    vp.view.setUint16(base + Vp.fcw, o.getUint16(at + Field.fcw, true), true);
    vp.view.setUint16(base + Vp.fsw, o.getUint16(at + Field.fsw, true), true);
    vp.view.setUint16(base + Vp.ftw, o.getUint8(at + Field.ftw), true);
    vp.view.setUint16(base + Vp.fop, o.getUint16(at + Field.fop, true), true);
    vp.bytes.set(out.subarray(at + Field.fip, at + Field.fip + 16), base + Vp.fip);
    const top = (o.getUint16(at + Field.fsw, true) >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const from = at + Field.st + i * 16;
      vp.bytes.set(out.subarray(from, from + 10), base + Vp.x87 + ((top + i) & 7) * 16);
    }
    vp.runtime.setRflags(o.getUint32(at + Field.rflags, true));
  }
  #save(out: Uint8Array, o: DataView, at: number): void {
    const { vp } = this.machine;
    const { base } = vp;
    out.set(vp.bytes.subarray(base + Vp.gpr, base + Vp.gpr + 128), at + Field.gpr);
    out.set(vp.bytes.subarray(base + Vp.xmm, base + Vp.xmm + 256), at + Field.xmm);
    o.setUint32(at + Field.mxcsr, vp.view.getUint16(base + Vp.mxcsr, true), true);
    o.setUint16(at + Field.fcw, vp.view.getUint16(base + Vp.fcw, true), true);
    const fsw = vp.view.getUint16(base + Vp.fsw, true);
    o.setUint16(at + Field.fsw, fsw, true);
    o.setUint8(at + Field.ftw, vp.view.getUint16(base + Vp.ftw, true));
    o.setUint16(at + Field.fop, vp.view.getUint16(base + Vp.fop, true), true);
    out.set(vp.bytes.subarray(base + Vp.fip, base + Vp.fip + 16), at + Field.fip);
    const top = (fsw >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const from = base + Vp.x87 + ((top + i) & 7) * 16;
      out.set(vp.bytes.subarray(from, from + 10), at + Field.st + i * 16);
    }
    o.setBigUint64(at + Field.rflags, BigInt(vp.runtime.rflags() >>> 0), true);
  }
}

/** The arithmetic flags, which most instructions define in full. */
export const ARITHMETIC_FLAGS = 0x8d5;
export interface Comparison {
  /** Bits of RFLAGS that count. */
  readonly flags?: number;
  /** Bits of MXCSR that count. */
  readonly mxcsr?: number;
  /** Compare x87 registers and their tags. */
  readonly x87?: boolean;
  /** Result bytes of xmm registers are not compared (approximations). */
  readonly skipXmm?: boolean;
}
/** @returns what differs between two outcomes of the case at `at`, "" = nothing */
export function difference(native: Uint8Array, ours: Uint8Array, at: number, how: Comparison = {}): string {
  const n = new DataView(native.buffer, native.byteOffset);
  const o = new DataView(ours.buffer, ours.byteOffset);
  const hex = (x: bigint | number): string => x.toString(16);
  const trap = n.getInt32(at + Field.trap, true);
  const trap2 = o.getInt32(at + Field.trap, true);
  if (trap !== trap2) return `trap ${trap2}, not ${trap}`;
  const word = (name: string, offset: number): string => {
    const a = n.getBigUint64(at + offset, true);
    const b = o.getBigUint64(at + offset, true);
    return a === b ? "" : `${name} ${hex(b)}, not ${hex(a)}`;
  };
  for (let i = 0; i < 16; i++) {
    const d = word(`r${i}`, Field.gpr + i * 8);
    if (d !== "") return d;
  }
  const rip = word("rip", Field.rip);
  if (rip !== "") return rip;
  const flags = how.flags ?? ARITHMETIC_FLAGS;
  const f1 = n.getUint32(at + Field.rflags, true) & flags;
  const f2 = o.getUint32(at + Field.rflags, true) & flags;
  if (f1 !== f2) return `flags ${hex(f2)}, not ${hex(f1)}`;
  if (!how.skipXmm)
    for (let i = 0; i < 32; i++) {
      const d = word(`xmm${i >> 1}.${i & 1}`, Field.xmm + i * 8);
      if (d !== "") return d;
    }
  const m1 = n.getUint32(at + Field.mxcsr, true) & (how.mxcsr ?? 0xffff);
  const m2 = o.getUint32(at + Field.mxcsr, true) & (how.mxcsr ?? 0xffff);
  if (m1 !== m2) return `mxcsr ${hex(m2)}, not ${hex(m1)}`;
  for (let i = 0; i < WINDOW_BYTES; i += 8) {
    const d = word(`memory+${i}`, Field.window + i);
    if (d !== "") return d;
  }
  if (how.x87) {
    const t1 = n.getUint8(at + Field.ftw);
    const t2 = o.getUint8(at + Field.ftw);
    if (t1 !== t2) return `tags ${hex(t2)}, not ${hex(t1)}`;
    const s1 = n.getUint16(at + Field.fsw, true);
    const s2 = o.getUint16(at + Field.fsw, true);
    if (s1 !== s2) return `fsw ${hex(s2)}, not ${hex(s1)}`;
    for (let i = 0; i < 8; i++) {
      const d = word(`st${i}`, Field.st + i * 16);
      if (d !== "") return d;
      const e1 = n.getUint16(at + Field.st + i * 16 + 8, true);
      const e2 = o.getUint16(at + Field.st + i * 16 + 8, true);
      if (e1 !== e2) return `st${i} exponent ${hex(e2)}, not ${hex(e1)}`;
    }
  }
  return "";
}
