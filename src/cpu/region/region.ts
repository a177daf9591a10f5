/**
 * What is compiled as one: basic blocks that are reached from a hot address by direct jumps, calls and fall-through, as far as the
 * interpreter has come to them (cpu-engine.md 3.4).
 */
import type { DecodedInstruction } from "../decode/block-builder.js";
import type { Row } from "../isa/table.js";

/** Instructions of a region at most: TurboFan's time grows faster than their number. */
const MAX_INSTRUCTIONS = 240;
const MAX_ENTRIES = 12;
/** Targets of indirect jumps at most: they are a byte in the region's table. */
const MAX_TARGETS = 200;

/** Code as the region compiler sees it, by distance from the page that the region begins in. */
export interface CodeSource {
  /** @returns undefined where the interpreter has to do what is there */
  instruction(offset: number): DecodedInstruction | undefined;
  /** Whether the interpreter has begun a block there: somebody has jumped to it. */
  wasEntered(offset: number): boolean;
  /** All such addresses of the page that begins at `offset`. */
  enteredIn(offset: number): readonly number[];
}

export interface RegionInstruction {
  readonly offset: number;
  readonly decoded: DecodedInstruction;
}
export interface BasicBlock {
  readonly offset: number;
  readonly instructions: readonly RegionInstruction[];
  /** Distance of the address behind the last instruction. */
  readonly end: number;
  /** Where the last instruction jumps to, if it does so directly. */
  readonly target: number | undefined;
  /** Whether it can also go on behind its end. */
  readonly fallsThrough: boolean;
}
export interface Region {
  readonly blocks: readonly BasicBlock[];
  readonly byOffset: ReadonlyMap<number, number>;
  /** Places in `blocks` that can be entered from outside; the first is where the region was asked for. */
  readonly entries: readonly number[];
  /** Places in `blocks` behind calls: where returns may lead. */
  readonly returns: readonly number[];
  /** Places in `blocks` where an indirect jump may lead. */
  readonly targets: readonly number[];
}

const isConditional = (row: Row): boolean => row.options.cc !== undefined;
const isCall = (row: Row): boolean => row.form === "call" || row.form === "callIndirect";
/** Distance of a direct jump's target. */
function targetOf({ offset, decoded }: RegionInstruction): number | undefined {
  const { row, records } = decoded;
  if (!isConditional(row) && row.form !== "jmp" && row.form !== "call") return undefined;
  const { immLow, immHigh } = records.at(-1)!;
  if (immHigh !== immLow >> 31) return undefined;
  return Math.floor(offset / 4096) * 4096 + immLow;
}
/** Forms that a region takes: everything that is a formula. A procedure works on the block's registers, so the interpreter does it. */
function isTaken({ row, records }: DecodedInstruction): boolean {
  if (row.options.selector !== undefined) return false;
  if (row.options.ends === true)
    return ["jmp", "call", "ret", "retImmediate", "jmpIndirect", "callIndirect"].includes(row.form);
  return isConditional(row) || records.every(({ form }) => !form.facts.canLeave);
}

/** @returns undefined where there is nothing to compile */
export function discoverRegion(source: CodeSource, start: number): Region | undefined {
  const found = new Map<number, RegionInstruction>();
  const leaders = new Set<number>([start]);
  const afterCalls = new Set<number>();
  const indirect = new Set<number>();
  const queue = [start];
  const isNear = (offset: number): boolean => Math.floor(offset / 4096) === Math.floor(start / 4096);
  const follow = (offset: number, always: boolean): void => {
    if (!isNear(offset)) return;
    if (!found.has(offset) && !always && !source.wasEntered(offset)) return;
    if (leaders.has(offset)) return;
    leaders.add(offset);
    queue.push(offset);
  };
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    for (let offset = at; found.size < MAX_INSTRUCTIONS && !found.has(offset); ) {
      if (!isNear(offset)) break;
      const decoded = source.instruction(offset);
      if (decoded === undefined || !isTaken(decoded)) break;
      const instruction = { offset, decoded };
      found.set(offset, instruction);
      const { row, length } = decoded;
      offset += length;
      const target = targetOf(instruction);
      if (isConditional(row)) {
        leaders.add(offset);
        // the loop's way back first: it is what the region is for
        if (target !== undefined) follow(target, target <= instruction.offset && found.has(target));
        if (!found.has(offset)) continue;
        break;
      }
      if (row.options.ends !== true) continue;
      if (target !== undefined) follow(target, row.form === "jmp");
      if (row.form === "jmpIndirect" && indirect.size === 0) {
        // nearest first: a jump table's targets are in the jump's own function
        const from = offset;
        const near = source
          .enteredIn(Math.floor(start / 4096) * 4096)
          .toSorted((a, b) => Math.abs(a - from) - Math.abs(b - from));
        for (const to of near.slice(0, MAX_TARGETS)) {
          indirect.add(to);
          follow(to, true);
        }
      }
      if (isCall(row)) {
        afterCalls.add(offset);
        follow(offset, false);
      }
      break;
    }
  }
  if (!found.has(start)) return undefined;

  const blocks: BasicBlock[] = [];
  const byOffset = new Map<number, number>();
  for (const leader of leaders) {
    if (!found.has(leader)) continue;
    const instructions: RegionInstruction[] = [];
    let offset = leader;
    let target: number | undefined;
    let fallsThrough = true;
    for (;;) {
      const instruction = found.get(offset);
      if (instruction === undefined || (instructions.length > 0 && leaders.has(offset))) break;
      instructions.push(instruction);
      const { row, length } = instruction.decoded;
      offset += length;
      if (isConditional(row) || row.options.ends === true) {
        target = targetOf(instruction);
        fallsThrough = isConditional(row);
        break;
      }
    }
    byOffset.set(leader, blocks.length);
    blocks.push({ offset: leader, instructions, end: offset, target, fallsThrough });
  }
  const inRegion = (offset: number): number => byOffset.get(offset) ?? -1;
  const returns = [...afterCalls].map(inRegion).filter((b) => b >= 0);
  const entries = [...new Set([inRegion(start), ...returns])].slice(0, MAX_ENTRIES);
  const targets = [...indirect].map(inRegion).filter((b) => b >= 0);
  return { blocks, byOffset, entries, returns, targets };
}
