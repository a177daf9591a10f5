/**
 * Cases of one arbitrary instruction in user mode: the record that sandboxed-runner.c and the engine share, and the way to the
 * former. Two pages of code lie at USER_CODE, which the program can read and execute; one page of data, whose end is the window
 * that is compared, ends at WINDOW_END. Nothing else of the lower half of the address space is there.
 */
import { spawnSync } from "node:child_process";
import { compileRunner } from "./native-runner.js";

export const USER_CODE = 0x200000;
export const USER_CODE_END = 0x202000;
export const DATA_PAGE = 0x300000;
export const WINDOW_END = 0x301000;
export const WINDOW_BYTES = 512;
export const WINDOW = WINDOW_END - WINDOW_BYTES;
export const CODE_BYTES = 32;
export const RECORD_BYTES = 1280;
/** Of an image of FXSAVE, the part with a meaning. */
export const FX_BYTES = 416;

export const At = {
  code: 0,
  trap: 32,
  options: 36,
  rip: 40,
  gpr: 48,
  rflags: 176,
  error: 184,
  fsBase: 192,
  gsBase: 200,
  cs: 208,
  ss: 210,
  ds: 212,
  es: 214,
  fs: 216,
  gs: 218,
  /** Hash of what an instruction wrote to the data page below the window, 0 = nothing. */
  below: 220,
  fx: 224,
  fcw: 224,
  fsw: 226,
  ftw: 228,
  fop: 230,
  fip: 232,
  fdp: 240,
  mxcsr: 248,
  st: 256,
  xmm: 384,
  window: 736,
  /** CR2; the engine's only. */
  faultAddress: 1248,
} as const;

/** Outcomes that are no vector. */
export const Outcome = { completed: -1, ranAway: -2, died: -3, notRun: -4, systemCall: 0x100 } as const;
export const outcomeName = (n: number): string =>
  Object.entries(Outcome).find(([, value]) => value === n)?.[0] ?? `vector ${n}`;
/** Bits of the options: the case is for the engine only; it is 32-bit code in compatibility mode. */
export const SKIP_NATIVE = 1;
export const COMPATIBILITY = 2;
export const codeSize = (view: DataView, at: number): 32 | 64 =>
  (view.getUint32(at + At.options, true) & COMPATIBILITY) !== 0 ? 32 : 64;

/** A fixed number of cases one behind the other, after their number. */
export class Records {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly capacity: number;
  count = 0;
  constructor(capacity: number) {
    this.capacity = capacity;
    this.bytes = new Uint8Array(capacity * RECORD_BYTES);
    this.view = new DataView(this.bytes.buffer);
  }
}

let program: string | undefined;
/** @returns undefined where there is no gcc or the processor is not an x86-64 one */
export function sandboxedProgram(): string | undefined {
  // the handler may not use what the FS base leads to, nor state that it does not keep
  program ??= compileRunner("sandboxed-runner.c", ["-fno-stack-protector", "-fcf-protection=none", "-mno-red-zone"]);
  return program;
}
export function runSandboxed(records: Records): Uint8Array {
  const exe = sandboxedProgram();
  if (exe === undefined) throw new Error("no native program");
  const size = records.count * RECORD_BYTES;
  const input = new Uint8Array(4 + size);
  new DataView(input.buffer).setUint32(0, records.count, true);
  input.set(records.bytes.subarray(0, size), 4);
  const { status, signal, stdout } = spawnSync(exe, { input, maxBuffer: size + 4096 });
  if (status !== 0 || stdout.length !== size)
    throw new Error(`sandboxed runner: status ${status}, signal ${signal}, ${stdout.length} of ${size} bytes`);
  return stdout;
}

/** Whether this system runs 32-bit code: Linux can be told not to. */
export function compatibilityMode(): boolean {
  const nop = new Records(1);
  nop.count = 1;
  nop.bytes[0] = 0x90;
  const { view } = nop;
  view.setUint32(At.options, COMPATIBILITY, true);
  view.setUint32(At.rip, USER_CODE, true);
  view.setUint32(At.rflags, 0x202, true);
  view.setUint32(At.mxcsr, 0x1f80, true);
  const outcome = runSandboxed(nop);
  return new DataView(outcome.buffer, outcome.byteOffset).getInt32(At.trap, true) === Outcome.completed;
}
