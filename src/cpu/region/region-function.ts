/** A region's function while it is written: its locals, what is known and used so far, the runtime's functions for it. */
import type { HelperName } from "../isa/runtime-calls.js";
import { MXCSR_ORDINARY, Vp } from "../layout.js";
import type { FunctionBuilder } from "../wasm/assembler.js";
import type { Scratch } from "../wasm/emitting-sem.js";

/** What is known about the lazy flags while code is written. */
export interface FlagState {
  /** Value of FlagKind, undefined = only known at run time. */
  readonly kind: number | undefined;
  /** The narrow copies hold the same: the last operation had at most 32 bits. */
  readonly narrow: boolean;
  /** The locals hold them. Else they may still be in the block, as the region found them. */
  readonly held: boolean;
}
export const UNKNOWN_FLAGS: FlagState = { kind: undefined, narrow: false, held: false };
/** In the local of the flags' kind: nothing has changed them, they are in the block. */
const UNCHANGED = -1;

/** Locals that hold what a processor has. */
export interface Homes {
  readonly gpr: number[];
  /** XMM0..XMM15. */
  readonly xmm: number[];
  flags: FlagLocals;
}
/** Lazy flags; the narrow ones hold the same as 32 bits, where that is known (FlagState.narrow). */
export interface FlagLocals {
  readonly a: number;
  readonly b: number;
  readonly r: number;
  /** In tight loops; elsewhere it is known where the flags are stored. */
  readonly kind: number;
  readonly narrowA: number;
  readonly narrowB: number;
  readonly narrowR: number;
}
/**
 * Where registers and flags are while a region is written: in the region's own locals, or, between the beginning of a segment
 * (block-plan.ts) and its end, in others, so that it can be left with what there was.
 */
export class RegionLocals {
  readonly #f: FunctionBuilder;
  readonly own: Homes;
  readonly #next: Homes;
  readonly #now: Homes;
  /** What is written goes to the region's own at once. */
  direct = true;
  /** Registers that have been written since they were last stored to the block, and whether the flags have. */
  readonly changedGpr = new Set<number>();
  readonly changedXmm = new Set<number>();
  flagsChanged = false;

  constructor(f: FunctionBuilder) {
    this.#f = f;
    this.own = { gpr: [], xmm: [], flags: this.#flagLocals() };
    this.#next = { gpr: [], xmm: [], flags: this.own.flags };
    this.#now = { gpr: [], xmm: [], flags: this.own.flags };
  }
  #flagLocals(): FlagLocals {
    const f = this.#f;
    const wide = (): number => f.local("i64");
    const narrow = (): number => f.local("i32");
    return { a: wide(), b: wide(), r: wide(), kind: narrow(), narrowA: narrow(), narrowB: narrow(), narrowR: narrow() };
  }
  ownGpr(n: number): number {
    return (this.own.gpr[n] ??= this.#f.local("i64"));
  }
  ownXmm(n: number): number {
    return (this.own.xmm[n] ??= this.#f.local("v128"));
  }
  /** To read. */
  gpr(n: number): number {
    return this.#now.gpr[n] ?? this.ownGpr(n);
  }
  xmm(n: number): number {
    return this.#now.xmm[n] ?? this.ownXmm(n);
  }
  get flags(): FlagLocals {
    return this.#now.flags;
  }
  /** To be written now. */
  toGpr(n: number): number {
    const own = this.ownGpr(n);
    this.changedGpr.add(n);
    if (this.direct) {
      delete this.#now.gpr[n];
      return own;
    }
    return (this.#now.gpr[n] = this.#next.gpr[n] ??= this.#f.local("i64"));
  }
  toXmm(n: number): number {
    const own = this.ownXmm(n);
    this.changedXmm.add(n);
    if (this.direct) {
      delete this.#now.xmm[n];
      return own;
    }
    return (this.#now.xmm[n] = this.#next.xmm[n] ??= this.#f.local("v128"));
  }
  toFlags(): FlagLocals {
    this.flagsChanged = true;
    if (this.direct) return (this.#now.flags = this.own.flags);
    if (this.#next.flags === this.own.flags) this.#next.flags = this.#flagLocals();
    return (this.#now.flags = this.#next.flags);
  }
  /** Nothing differs from the block. */
  forgetChanges(): void {
    this.changedGpr.clear();
    this.changedXmm.clear();
    this.flagsChanged = false;
  }
  /**
   * Everything to the region's own.
   * @param narrow whether the narrow flags hold something
   */
  settle(narrow: boolean): void {
    const f = this.#f;
    const move = (from: number, to: number): void => {
      f.get(from);
      f.set(to);
    };
    this.#now.gpr.forEach((local, n) => {
      move(local, this.own.gpr[n]!);
    });
    this.#now.xmm.forEach((local, n) => {
      move(local, this.own.xmm[n]!);
    });
    this.#now.gpr.length = this.#now.xmm.length = 0;
    const { flags } = this.#now;
    const own = this.own.flags;
    if (flags === own) return;
    move(flags.a, own.a);
    move(flags.b, own.b);
    move(flags.r, own.r);
    if (narrow) {
      move(flags.narrowA, own.narrowA);
      move(flags.narrowB, own.narrowB);
      move(flags.narrowR, own.narrowR);
    }
    this.#now.flags = own;
  }
}

/**
 * How accesses to memory are written: by segments and groups (block-plan.ts), but in tight loops; so in those too; "careful": each looked
 * up by itself, and misses asked of the runtime.
 */
export const REGION_WAYS = ["usual", "segments", "careful"] as const;
export type RegionWay = (typeof REGION_WAYS)[number];

/** The function being written. */
export interface RegionFunction {
  readonly f: FunctionBuilder;
  readonly scratch: Scratch;
  /** Of the processor's block. */
  readonly base: number;
  /** A function of the runtime that is called. @returns the reference to call it by (FunctionBuilder.callReference) */
  readonly helper: (name: HelperName | RegionHelperName) => number;
  /** First byte of the TLB of the region's privilege level. */
  readonly tlb: number;
  readonly locals: RegionLocals;
  readonly ripPage: number;
  readonly tempAddress: number;
  /**
   * What the runtime said of an access that cannot be done here: 0 = a fault is recorded, 1 = the interpreter has to do it; -1: nothing is
   * wrong, but the region has to be left.
   */
  readonly refusal: number;
  /** Where in the region (relative to ripPage) it was, and how many instructions of its block were done before. */
  readonly leftAt: number;
  readonly leftAfter: number;
  /** Label of the code that leaves for the interpreter: by `refusal`, or, in a segment, for its first instruction. */
  leave: number;
  /** Label of the code that leaves by `refusal`, from everywhere. */
  leaveRegion: number;
  /**
   * The region is a tight loop. Each access leaves it for itself; one that is not in the TLB asks the runtime and goes on; ways out store
   * what has changed. Else accesses are planned (block-plan.ts), a miss is the interpreter's, and the block is kept up to date: registers
   * and flags are stored behind each basic block and before a segment that may be left, so that ways out have nothing to store and less
   * is alive. (A call at every access, and registers that live across it or to a way out, are what most of the time of compiling goes to.)
   */
  readonly tight: boolean;
  /** An instruction is being written that may change flags in one arm: they are stored at once. */
  flagsAtOnce: boolean;
  /** Locals for addresses in the memory that hold for a block; how many of them are in use. */
  readonly hosts: number[];
  usedHosts: number;
  flags: FlagState;
  /** Something looks at flags that the region may have found: it begins by loading them. */
  findsFlags: boolean;
  readonly usedRegisters: Set<number>;
  readonly writtenRegisters: Set<number>;
  readonly usedVectors: Set<number>;
  readonly writtenVectors: Set<number>;
  /** MXCSR, xor what lets arithmetic go the host's way. */
  readonly float: number;
  usesFloat: boolean;
  /** MXCSR was not as arithmetic goes the host's way with when the region was asked for: what does not is called for in place. */
  readonly oddFloat: boolean;
  /** RegionWay: what was made before for this code was left too often. */
  readonly careful: boolean;
  readonly budget: number;
  /** Regions that had died when the region was entered, for procedures that may write code. */
  readonly deaths: number;
  usesDeaths: boolean;
  /** Label of the code that leaves with all but the budget in the block. */
  procedureLeft: number;
  readonly status: number;
  /** Of all that the region uses, which is known when it has been written: what procedures find in the block and may change there. */
  readonly storeAll: Transfer;
  readonly storeAllVectors: Transfer;
  readonly loadAll: Transfer;
  readonly loadAllVectors: Transfer;
  /** Puts bytes where they stay as long as the region. @returns their distance from the address that KEPT_REFERENCE is */
  readonly keep: (bytes: Uint8Array) => number;
}
/** Writes code between the locals and the processor's block. */
export type Transfer = (f: FunctionBuilder) => void;

// Between the locals and the processor's block.

export function loadRegisters(f: FunctionBuilder, c: RegionFunction, registers: Iterable<number>): void {
  for (const n of registers) {
    f.i32(0);
    f.mem("i64_load", c.base + Vp.gpr + n * 8, 3);
    f.set(c.locals.toGpr(n));
  }
}
export function storeRegisters(f: FunctionBuilder, c: RegionFunction, registers: Iterable<number>): void {
  for (const n of registers) {
    f.i32(0);
    f.get(c.locals.gpr(n));
    f.mem("i64_store", c.base + Vp.gpr + n * 8, 3);
  }
}
export function loadVectors(f: FunctionBuilder, c: RegionFunction, vectors: Iterable<number>): void {
  for (const n of vectors) {
    f.i32(0);
    f.simdMem(0, c.base + Vp.xmm + n * 16, 4);
    f.set(c.locals.toXmm(n));
  }
}
export function storeVectors(f: FunctionBuilder, c: RegionFunction, vectors: Iterable<number>): void {
  for (const n of vectors) {
    f.i32(0);
    f.get(c.locals.xmm(n));
    f.simdMem(11, c.base + Vp.xmm + n * 16, 4);
  }
}
const flagSlots = ({ a, b, r }: FlagLocals): readonly (readonly [local: number, at: number])[] => [
  [a, Vp.flagA],
  [b, Vp.flagB],
  [r, Vp.flagR],
];
/** Those of a known kind. */
export function storeKnownFlags(f: FunctionBuilder, c: RegionFunction): void {
  for (const [local, at] of flagSlots(c.locals.flags)) {
    f.i32(0);
    f.get(local);
    f.mem("i64_store", c.base + at, 3);
  }
  f.i32(0);
  f.i32(c.flags.kind!);
  f.mem("i32_store", c.base + Vp.flagKind, 2);
}
/** What has been written since it was last stored; locals are the region's own. */
export function storeChanges(f: FunctionBuilder, c: RegionFunction): void {
  const { locals } = c;
  storeRegisters(f, c, locals.changedGpr);
  storeVectors(f, c, locals.changedXmm);
  if (locals.flagsChanged) storeKnownFlags(f, c);
  locals.forgetChanges();
}
/** Where they have been changed. */
export function storeFlags(f: FunctionBuilder, c: RegionFunction): void {
  const { flags } = c.locals;
  f.get(flags.kind);
  f.i32(0);
  f.op("i32_ge_s");
  f.if();
  for (const [local, at] of flagSlots(flags)) {
    f.i32(0);
    f.get(local);
    f.mem("i64_store", c.base + at, 3);
  }
  f.i32(0);
  f.get(flags.kind);
  f.mem("i32_store", c.base + Vp.flagKind, 2);
  f.end();
}
export function loadFlags(f: FunctionBuilder, c: RegionFunction): void {
  const flags = c.locals.toFlags();
  for (const [local, at] of flagSlots(flags)) {
    f.i32(0);
    f.mem("i64_load", c.base + at, 3);
    f.set(local);
  }
  f.i32(0);
  f.mem("i32_load", c.base + Vp.flagKind, 2);
  f.set(flags.kind);
}
/** At the region's beginning. */
export function findFlags(f: FunctionBuilder, c: RegionFunction): void {
  if (!c.tight) return;
  if (c.findsFlags) loadFlags(f, c);
  else {
    f.i32(UNCHANGED);
    f.set(c.locals.toFlags().kind);
  }
}
/** MXCSR as arithmetic in the region looks at it: 0 = the host's way, all but PE 0 = for what is exact. */
export function loadFloat(f: FunctionBuilder, c: RegionFunction): void {
  f.i32(0);
  f.mem("i32_load", c.base + Vp.mxcsr, 2);
  f.i32(MXCSR_ORDINARY.mask);
  f.op("i32_and");
  f.i32(MXCSR_ORDINARY.value);
  f.op("i32_xor");
  f.set(c.float);
}

/** The runtime's functions for regions: linear address, bytes -> address in the memory, 0 = fault, 1 = for the interpreter. */
export const RegionHelper = {
  regionRead: { params: ["i64", "i32"], result: "i32" },
  regionWrite: { params: ["i64", "i32"], result: "i32" },
  /** For a careful region: linear address, bytes, write? -> address in the memory, 1 = for the interpreter. */
  regionRefill: { params: ["i64", "i32", "i32"], result: "i32" },
  /** Base, RegionPages -> whether they are right. */
  regionPages: { params: ["i64", "i32"], result: "i32" },
  /** The interpreter's: RIP, budget, an ExitSlot -> RegionStatus of the region that goes on there, or next. */
  chain: { params: ["i64", "i32", "i32"], result: "i32" },
} as const;
export type RegionHelperName = keyof typeof RegionHelper;
