/**
 * Two processors side by side, one with regions and one that interprets, from the same state: each slice of the first is followed
 * by the second instruction by instruction, and all that a program can see of the processor is compared (cpu-engine.md 6).
 */
import { Exit, SEG_BYTES, Vp } from "../layout.js";
import type { VirtualProcessor } from "../vp/virtual-processor.js";

/** Beyond the budget the interpreter runs to the end of a block: fewer instructions than this. */
const MAX_OVERRUN = 64;

const GPR = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"];
type Field = readonly [name: string, offset: number, bytes: number];
/** What is compared, with the names that reports have. RFLAGS are put together from their parts. */
const FIELDS: readonly Field[] = [
  ["rip", Vp.rip, 8],
  ...Array.from({ length: 16 }, (_, i): Field => [GPR[i] ?? `r${i}`, Vp.gpr + i * 8, 8]),
  ...Array.from({ length: 16 }, (_, i): Field => [`xmm${i}`, Vp.xmm + i * 16, 16]),
  ["mxcsr", Vp.mxcsr, 4],
  ...Array.from({ length: 8 }, (_, i): Field => [`x87 ${i}`, Vp.x87 + i * 16, 10]),
  ["fcw", Vp.fcw, 2],
  ["fsw", Vp.fsw, 2],
  ["ftw", Vp.ftw, 2],
  ["fop", Vp.fop, 2],
  ["fip", Vp.fip, 8],
  ["fdp", Vp.fdp, 8],
  ...SEGMENTS.map((name, i): Field => [name, Vp.seg + i * SEG_BYTES, SEG_BYTES]),
  ...SEGMENTS.slice(0, 6).map((name, i): Field => [`${name} base`, Vp.segBase + i * 8, 8]),
  ["gdtr", Vp.gdtrBase, 16],
  ["idtr", Vp.idtrBase, 16],
  ["cr0", Vp.cr0, 8],
  ["cr2", Vp.cr2, 8],
  ["cr3", Vp.cr3, 8],
  ["cr4", Vp.cr4, 8],
  ["efer", Vp.efer, 8],
  ["xcr0", Vp.xcr0, 8],
  ...Array.from({ length: 8 }, (_, i): Field => [`dr${i}`, Vp.dr + i * 8, 8]),
  ["syscall msrs", Vp.star, Vp.features - Vp.star],
  ["cpl", Vp.cpl, 4],
  ["shadow", Vp.shadow, 4],
  ["nmi blocked", Vp.nmiBlocked, 4],
];
const STATE_BYTES = Vp.nmiBlocked + 4;

/** A processor's registers at one moment. */
export interface RegisterState {
  /** The start of its block. */
  readonly block: Uint8Array;
  readonly rflags: number;
  readonly retired: number;
}
export function registersOf(vp: VirtualProcessor): RegisterState {
  return {
    block: vp.bytes.slice(vp.base, vp.base + STATE_BYTES),
    rflags: vp.runtime.rflags() >>> 0,
    retired: vp.retired,
  };
}
const text = (s: RegisterState, at: number, bytes: number): string =>
  Array.from(s.block.subarray(at, at + bytes), (b) => b.toString(16).padStart(2, "0"))
    .reverse()
    .join("");
/** @returns a line for each register that is not the same, none = equal */
export function registerDifferences(interpreted: RegisterState, compiled: RegisterState): string[] {
  const lines: string[] = [];
  if (interpreted.rflags !== compiled.rflags)
    lines.push(`rflags: interpreted ${interpreted.rflags.toString(16)}, compiled ${compiled.rflags.toString(16)}`);
  const [a, b] = [interpreted.block, compiled.block];
  for (const [name, at, bytes] of FIELDS) {
    let i = at;
    while (i < at + bytes && a[i] === b[i]) i++;
    if (i === at + bytes) continue;
    lines.push(`${name}: interpreted ${text(interpreted, at, bytes)}, compiled ${text(compiled, at, bytes)}`);
  }
  return lines;
}
/** Registers as text, those that programs use. */
export function formatRegisters(s: RegisterState): string {
  const shown = FIELDS.filter(([name]) => /^(r\w+|xmm\d+|mxcsr|cr[23]|cpl)$/.test(name));
  const words = shown.map(([name, at, bytes]) => `${name} ${text(s, at, bytes)}`);
  return `retired ${s.retired} rflags ${s.rflags.toString(16)} ${words.join(" ")}`;
}

/**
 * Interprets exactly so many instructions: most at once, the last one by one. Nothing of the machine is looked at between them, so
 * that it is as if they had been one slice.
 *
 * @param before is called before each instruction: they are all run one by one
 * @returns Exit of the last one
 */
export function runExactly(
  vp: VirtualProcessor,
  instructions: number,
  run = (budget: number): number => vp.run(budget),
  before?: () => void,
): number {
  const end = vp.retired + instructions;
  let reason = 0;
  let begun = false;
  // what STI holds off is held off for one instruction, and nothing looks in between here
  const goOn = (): void => {
    if (begun) vp.view.setUint32(vp.base + Vp.shadow, 0, true);
    begun = true;
  };
  while (vp.retired < end - MAX_OVERRUN && before === undefined) {
    const had = vp.retired;
    goOn();
    reason = run(end - MAX_OVERRUN - vp.retired);
    if (vp.retired === had) throw new Error("invariant broken: a slice without an instruction");
  }
  const slot = vp.base + Vp.singleStep;
  const stepping = vp.view.getUint32(slot, true);
  vp.view.setUint32(slot, 1, true);
  vp.runtime.updateMode();
  while (vp.retired < end) {
    before?.();
    goOn();
    reason = run(0);
  }
  vp.view.setUint32(slot, stepping, true);
  vp.runtime.updateMode();
  if (vp.retired !== end) throw new Error(`invariant broken: ${vp.retired - end} instructions too many`);
  return reason;
}

/** Whether two reasons to come out are the same: when the pending word is looked at is not what a program can see. */
export const sameExit = (a: number, b: number): boolean => a === b || Math.max(a, b) <= Exit.event;

/** What the two have made of the same instructions. */
export interface Difference {
  readonly lines: readonly string[];
  readonly before: RegisterState;
  readonly interpreted: RegisterState;
  readonly compiled: RegisterState;
}
export interface PairOptions {
  /** Has regions. */
  readonly compiled: VirtualProcessor;
  readonly interpreted: VirtualProcessor;
}
/** Two bare processors; whole machines: vm/lockstep.ts. */
export class LockstepPair {
  readonly #o: PairOptions;
  difference: Difference | undefined;
  constructor(o: PairOptions) {
    this.#o = o;
  }
  /** One slice on both. @returns Exit */
  run(budget: number): number {
    const { compiled, interpreted } = this.#o;
    const before = registersOf(compiled);
    const reason = compiled.run(budget);
    const other = runExactly(interpreted, compiled.retired - before.retired);
    const [a, b] = [registersOf(interpreted), registersOf(compiled)];
    const lines = registerDifferences(a, b);
    if (!sameExit(reason, other)) lines.unshift(`exit: interpreted ${other}, compiled ${reason}`);
    if (lines.length > 0) this.difference = { lines, before, interpreted: a, compiled: b };
    return reason;
  }
}
