/**
 * What is decided about a basic block before its code is written: where it may be left for the interpreter, and which of its
 * accesses to memory are looked up in the TLB together.
 *
 * **Segments.** Up to the next store (or procedure) nothing that an instruction does is seen outside the region: what it
 * writes stays in locals of its own until then. So an access that the TLB does not know leaves for the segment's first instruction,
 * with registers and flags as they were there, and all such ways out are one.
 *
 * **Groups.** Accesses that are constants apart (fields of a structure, pushes, a frame) are in one page as a rule: one look at the
 * TLB does for all. If the address is known from registers as they were at the block's beginning, it is the first thing that
 * the block does. A group that lies in two pages is the interpreter's, as is a miss.
 */
import type { DecodedRecord } from "../decode/block-builder.js";
import { Vp } from "../layout.js";
import { accessFacts, type Origin } from "./access-facts.js";
import { type BasicBlock, pageOf } from "./region.js";

/** Bytes of a group at most: one in 4096 / MAX_SPAN lies in two pages. */
const MAX_SPAN = 128;

/** A register or another slot of the processor's block as it was when the block began (version 0) or was last set. */
interface Root {
  readonly slot: number;
  readonly version: number;
  readonly shift: number;
}
/** A sum of roots and a constant. */
interface Sum {
  readonly roots: readonly Root[];
  readonly add: number;
}
/** Accesses with one look at the TLB. */
export interface AccessGroup {
  /** Terms of its address, if it is known from what the block begins with: slots and shifts. */
  readonly roots: readonly Root[];
  readonly atBeginning: boolean;
  write: boolean;
  /** Constant part of the first and of the last byte's address, plus one. */
  start: number;
  end: number;
  /** Local with the address of the first byte in the memory, once it has been written. */
  host: number;
}
export interface PlannedAccess {
  readonly group: AccessGroup;
  /** Constant part of its address. */
  readonly at: number;
}
export interface Segment {
  /** Place of its first instruction in the block. */
  readonly first: number;
  /** Whether it can be left. */
  leaves: boolean;
  /** One instruction that writes to the region's locals at once: it does so in arms that may not be taken, or is a procedure. */
  readonly direct: boolean;
}
export interface BlockPlan {
  readonly segments: readonly Segment[];
  /** By instruction and record: its accesses, undefined = by themselves. */
  readonly accesses: readonly (readonly (readonly (PlannedAccess | undefined)[])[])[];
  readonly atBeginning: readonly AccessGroup[];
  /** By instruction: its segment cannot be left behind it. */
  readonly settled: readonly boolean[];
}

class Planner {
  readonly #versions = new Map<number, number>();
  readonly #values = new Map<number, Sum>();
  #next = 1;
  #epoch = 0;
  readonly #open = new Map<string, AccessGroup>();
  readonly atBeginning: AccessGroup[] = [];

  /** A procedure may have changed anything, the TLB too. */
  barrier(): void {
    this.#epoch = this.#next++;
    this.#versions.clear();
    this.#values.clear();
    this.#open.clear();
  }
  #root(slot: number): Sum {
    const value = this.#values.get(slot);
    if (value !== undefined) return value;
    return { roots: [{ slot, version: this.#versions.get(slot) ?? this.#epoch, shift: 0 }], add: 0 };
  }
  #sumOf(record: DecodedRecord, origin: Origin, page: number): Sum | undefined {
    const roots: Root[] = [];
    let add = origin.add;
    const take = (slot: number, shift: number): boolean => {
      if (slot === Vp.zero) return true;
      const sum = this.#root(slot);
      for (const root of sum.roots) roots.push({ ...root, shift: root.shift + shift });
      add += sum.add * 2 ** shift;
      return roots.length <= 3;
    };
    for (const { of, at } of origin.terms) {
      let fits = true;
      if (of === "slot") fits = take(at, 0);
      else if (of === "field") fits = take(record.src, 0);
      else if (of === "register") fits = take(registerOffset(record, at), 0);
      else {
        add += record.disp + (record.base === Vp.ripPage ? page : 0);
        fits = take(record.base, 0);
        if (fits && record.form.operands[at]!.kind === "x") fits = take(record.index, record.scale);
      }
      if (!fits) return undefined;
    }
    if (origin.immediates !== 0) {
      if (record.immHigh !== record.immLow >> 31) return undefined;
      add += origin.immediates * record.immLow;
    }
    return Math.abs(add) < 2 ** 40 ? { roots, add } : undefined;
  }
  record(record: DecodedRecord, page: number): readonly (PlannedAccess | undefined)[] {
    const { accesses, effects } = accessFacts(record.form);
    const planned = accesses.map(({ origin, bytes, write }) => {
      const sum = origin === undefined ? undefined : this.#sumOf(record, origin, page);
      return sum === undefined ? undefined : this.#plan(sum, bytes, write);
    });
    const values = effects.map(({ of, at, origin }) => ({
      slot: of === "slot" ? at : registerOffset(record, at),
      value: origin === undefined ? undefined : this.#sumOf(record, origin, page),
    }));
    for (const { slot, value } of values) this.#set(slot & ~7, value);
    return planned;
  }
  #set(slot: number, value: Sum | undefined): void {
    this.#versions.set(slot, this.#next++);
    if (value === undefined) this.#values.delete(slot);
    else this.#values.set(slot, value);
  }
  #plan({ roots, add }: Sum, bytes: number, write: boolean): PlannedAccess {
    const key = roots
      .map(({ slot, version, shift }) => `${slot}.${version}.${shift}`)
      .sort()
      .join();
    let group = this.#open.get(key);
    if (group !== undefined) {
      const start = Math.min(group.start, add);
      const end = Math.max(group.end, add + bytes);
      if (end - start > MAX_SPAN) group = undefined;
      else {
        group.start = start;
        group.end = end;
        group.write ||= write;
      }
    }
    if (group === undefined) {
      const atBeginning = this.#epoch === 0 && roots.every(({ version }) => version === 0);
      group = { roots, atBeginning, write, start: add, end: add + bytes, host: -1 };
      this.#open.set(key, group);
      if (atBeginning) this.atBeginning.push(group);
    }
    return { group, at: add };
  }
}

/** @param oddFloat whether arithmetic in another mode than usual is done in place */
export function planBlock({ instructions }: BasicBlock, oddFloat: boolean): BlockPlan {
  const planner = new Planner();
  const accesses: (readonly (PlannedAccess | undefined)[])[][] = [];
  const segments: Segment[] = [];
  const leaves: boolean[] = [];
  const looked = new Set<AccessGroup>();
  let ended = true;
  instructions.forEach(({ offset, decoded: { records } }, i) => {
    const facts = records.map(({ form }) => accessFacts(form));
    const procedure = records.some(({ raw }) => raw !== undefined);
    const direct = procedure || facts.some((f) => f.conditional || (f.alternative && oddFloat));
    if (ended || direct) segments.push({ first: i, leaves: false, direct });
    const planned = records.map((record) => planner.record(record, pageOf(offset)));
    accesses.push(planned);
    leaves[i] = procedure || facts.some(({ faults }) => faults);
    for (const access of planned.flat()) {
      if (access !== undefined && (access.group.atBeginning || looked.has(access.group))) continue;
      if (access !== undefined) looked.add(access.group);
      leaves[i] = true;
    }
    segments.at(-1)!.leaves ||= leaves[i]!;
    ended = direct || records.some(({ form }) => form.facts.stores);
    if (procedure) planner.barrier();
  });
  const { atBeginning } = planner;
  if (atBeginning.length > 0) segments[0]!.leaves = true;
  const settled = leaves.map((_, i) => {
    const end = segments.find(({ first }) => first > i)?.first ?? leaves.length;
    return !leaves.slice(i + 1, end).includes(true);
  });
  return { segments, accesses, atBeginning, settled };
}

/** Offset of the slot of a register operand. */
export function registerOffset(record: DecodedRecord, i: number): number {
  let field = 0;
  for (let k = 0; k < i; k++) if (record.form.operands[k]!.kind === "r") field++;
  return field === 0 ? record.dst : field === 1 ? record.src : record.src2 * 8;
}
