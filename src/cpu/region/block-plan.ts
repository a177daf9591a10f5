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
/** In a careful region: what is read and then written is one access. */
const CAREFUL_SPAN = 16;
/** What an address may be the sum of. */
const MAX_ROOTS = 3;
const MAX_CONSTANT = 2 ** 40;

/** A register or another slot of the processor's block as it was at some time. */
interface Root {
  readonly slot: number;
  /** Number of the time; 0 = at the beginning. */
  readonly version: number;
  readonly shift: number;
}
/** A sum of roots and a constant. */
interface Sum {
  readonly roots: readonly Root[];
  readonly add: number;
}
/** A register or slot, shifted, plus a constant. */
export interface Term {
  readonly slot: number;
  readonly shift: number;
  readonly add: number;
}
/** Accesses with one look at the TLB. */
export interface AccessGroup {
  /** Its address but for the constant part, if that is known at the beginning of the block; the look comes first then. */
  readonly atBeginning: readonly Term[] | undefined;
  readonly write: boolean;
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
  /** It is the one that looks the group up. */
  readonly looks: boolean;
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
  /** Groups that the block looks up, and those of them that it does before anything else. */
  readonly groups: readonly AccessGroup[];
  readonly first: readonly AccessGroup[];
  /** By instruction: its segment cannot be left behind it. */
  readonly settled: readonly boolean[];
}

/** Versions are told apart in all of a region. */
class Versions {
  #last = 0;
  next(): number {
    return ++this.#last;
  }
}

/** Slots that an address may be made of, by eighth of their offset. */
const SLOTS = 32;

/** What is known while a block is gone through. */
class Knowledge {
  readonly #ids: Versions;
  /** Of each slot the number of the time that it was set last. */
  readonly #versions: Int32Array;
  /** Of those that are sums of what was there before. */
  readonly #values: (Sum | undefined)[];
  /** Both as they were at the beginning of the block. */
  readonly #firstVersions: Int32Array;
  readonly #firstValues: readonly (Sum | undefined)[];
  /** The last group by its roots. */
  readonly #open: Map<string, AccessGroup>;
  /** Number of the last procedure. */
  #epoch: number;
  readonly #firstEpoch: number;
  /** Of this block. */
  readonly groups: AccessGroup[] = [];
  readonly #careful: boolean;

  /** @param before at the end of the only block that leads here */
  constructor(ids: Versions, before: Knowledge | undefined, careful: boolean) {
    this.#ids = ids;
    this.#careful = careful;
    this.#versions = before === undefined ? new Int32Array(SLOTS) : before.#versions.slice();
    this.#values = before === undefined ? new Array<undefined>(SLOTS).fill(undefined) : [...before.#values];
    this.#open = new Map(before === undefined ? [] : before.#open);
    this.#epoch = this.#firstEpoch = before === undefined ? 0 : before.#epoch;
    this.#firstVersions = before === undefined ? NO_VERSIONS : before.#versions;
    this.#firstValues = before === undefined ? NO_VALUES : before.#values;
  }
  /** A procedure may have changed anything, the TLB too. */
  barrier(): void {
    this.#epoch = this.#ids.next();
    this.#versions.fill(this.#epoch);
    this.#values.fill(undefined);
    this.#open.clear();
  }
  #valueOf(slot: number): Sum {
    const value = this.#values[slot >> 3];
    if (value !== undefined) return value;
    return { roots: [{ slot, version: this.#versions[slot >> 3]!, shift: 0 }], add: 0 };
  }
  #sumOf(record: DecodedRecord, origin: Origin, page: number): Sum | undefined {
    const roots: Root[] = [];
    let { add } = origin;
    let followed = true;
    const take = (slot: number, shift: number): void => {
      if (slot === Vp.zero) return;
      followed &&= slot >> 3 < SLOTS;
      const sum = this.#valueOf(slot);
      for (const root of sum.roots) roots.push(shift === 0 ? root : { ...root, shift: root.shift + shift });
      add += sum.add * 2 ** shift;
    };
    for (const { of, at } of origin.terms) {
      if (of === "slot") take(at, 0);
      else if (of === "field") take(record.src, 0);
      else if (of === "register") take(registerOffset(record, at), 0);
      else {
        add += record.disp + (record.base === Vp.ripPage ? page : 0);
        take(record.base, 0);
        if (record.form.operands[at]!.kind === "x") take(record.index, record.scale);
      }
    }
    if (origin.immediates !== 0) {
      if (record.immHigh !== record.immLow >> 31) return undefined;
      add += origin.immediates * record.immLow;
    }
    return followed && roots.length <= MAX_ROOTS && Math.abs(add) < MAX_CONSTANT ? { roots, add } : undefined;
  }
  record(record: DecodedRecord, page: number): readonly (PlannedAccess | undefined)[] {
    const { accesses, effects } = accessFacts(record.form);
    const planned = accesses.map(({ origin, bytes, write }) => {
      const sum = origin === undefined ? undefined : this.#sumOf(record, origin, page);
      return sum === undefined ? undefined : this.#plan(sum, bytes, write);
    });
    if (effects.length === 0) return planned;
    // all of them from what there was before
    const values = effects.map(({ origin }) => (origin === undefined ? undefined : this.#sumOf(record, origin, page)));
    effects.forEach(({ of, at }, i) => {
      const slot = (of === "slot" ? at : registerOffset(record, at)) >> 3;
      // vector registers and the like are no part of an address
      if (slot >= SLOTS) return;
      this.#versions[slot] = this.#ids.next();
      this.#values[slot] = values[i];
    });
    return planned;
  }
  /** Where a root can be had from at the beginning of the block. */
  #termOf({ slot, version, shift }: Root): Term | undefined {
    const value = this.#firstValues[slot >> 3];
    if (value === undefined) return this.#firstVersions[slot >> 3] === version ? { slot, shift, add: 0 } : undefined;
    const [root] = value.roots;
    if (value.roots.length !== 1 || root!.slot !== slot || root!.version !== version || root!.shift !== 0)
      return undefined;
    return { slot, shift, add: -value.add };
  }
  #plan({ roots, add }: Sum, bytes: number, write: boolean): PlannedAccess {
    const key = roots.length === 1 ? keyOf(roots[0]!) : roots.map(keyOf).sort().join();
    const known = this.#open.get(key);
    if (known !== undefined && (known.write || !write)) {
      const start = Math.min(known.start, add);
      const end = Math.max(known.end, add + bytes);
      if (end - start <= (this.#careful ? CAREFUL_SPAN : MAX_SPAN)) {
        known.start = start;
        known.end = end;
        return { group: known, at: add, looks: false };
      }
    }
    const terms = roots.map((root) => this.#termOf(root));
    // where a look may change a page table's bits, it has to come in its turn
    const late = this.#careful || this.#epoch !== this.#firstEpoch || terms.includes(undefined);
    const group: AccessGroup = {
      atBeginning: late ? undefined : (terms as Term[]),
      write,
      start: add,
      end: add + bytes,
      host: -1,
    };
    this.#open.set(key, group);
    this.groups.push(group);
    return { group, at: add, looks: group.atBeginning === undefined };
  }
}
const NO_VERSIONS = new Int32Array(SLOTS);
const NO_VALUES: readonly undefined[] = new Array<undefined>(SLOTS).fill(undefined);
const keyOf = ({ slot, version, shift }: Root): string => `${slot}.${version}.${shift}`;
export interface PlanMode {
  /** Arithmetic in another mode than usual is done in place. */
  readonly oddFloat: boolean;
  /** Accesses stay by themselves. */
  readonly careful: boolean;
}
/**
 * @param before the block that leads to a block, where it is the only one that does and nobody enters the block from outside
 * @returns by block
 */
export function planBlocks(
  blocks: readonly BasicBlock[],
  before: (block: number) => number | undefined,
  mode: PlanMode,
): readonly BlockPlan[] {
  const ids = new Versions();
  const plans: BlockPlan[] = [];
  const ends: Knowledge[] = [];
  /** Blocks that only lead to each other are never reached. */
  const begun = new Set<number>();
  const plan = (n: number): void => {
    if (begun.has(n)) return;
    begun.add(n);
    const from = before(n);
    if (from !== undefined) plan(from);
    const known = new Knowledge(ids, from === undefined ? undefined : ends[from], mode.careful);
    plans[n] = planBlock(blocks[n]!, known, mode);
    ends[n] = known;
  };
  for (let n = 0; n < blocks.length; n++) plan(n);
  return plans;
}
function planBlock({ instructions }: BasicBlock, known: Knowledge, { oddFloat, careful }: PlanMode): BlockPlan {
  const accesses: (readonly (PlannedAccess | undefined)[])[][] = [];
  const segments: Segment[] = [];
  const leaves: boolean[] = [];
  let ended = true;
  instructions.forEach(({ offset, decoded: { records } }, i) => {
    const facts = records.map(({ form }) => accessFacts(form));
    const procedure = records.some(({ raw }) => raw !== undefined);
    const direct = procedure || facts.some((f) => f.conditional || (f.alternative && oddFloat));
    const planned = records.map((record) => known.record(record, pageOf(offset)));
    accesses.push(planned);
    const looks = planned.flat().some((access) => access?.looks !== false);
    // what the runtime does for an access (a page table's accessed bit) is not to be seen before the access
    if (ended || direct || (careful && looks)) segments.push({ first: i, leaves: false, direct });
    leaves[i] = procedure || looks || facts.some(({ faults }) => faults);
    segments.at(-1)!.leaves ||= leaves[i]!;
    ended = direct || records.some(({ form }) => form.facts.stores);
    if (procedure) known.barrier();
  });
  const { groups } = known;
  const first = groups.filter(({ atBeginning }) => atBeginning !== undefined);
  if (first.length > 0) segments[0]!.leaves = true;
  const settled: boolean[] = [];
  for (let n = segments.length - 1, i = leaves.length - 1, later = false; i >= 0; i--) {
    settled[i] = !later;
    later ||= leaves[i]!;
    if (segments[n]!.first !== i) continue;
    n--;
    later = false;
  }
  return { segments, accesses, groups, first, settled };
}

/** Offset of the slot of a register operand. */
export function registerOffset(record: DecodedRecord, i: number): number {
  let field = 0;
  for (let k = 0; k < i; k++) if (record.form.operands[k]!.kind === "r") field++;
  return field === 0 ? record.dst : field === 1 ? record.src : record.src2 * 8;
}
