/**
 * What is compiled as one: basic blocks that are reached from a hot address by direct jumps, calls and fall-through, as far as the
 * interpreter has come to them (cpu-engine.md 3.4), over a few pages.
 */
import type { DecodedInstruction } from "../decode/block-builder.js";
import type { Row } from "../isa/table.js";

/** Instructions of a region at most: TurboFan's time grows faster than their number. */
const MAX_INSTRUCTIONS = 400;
const MAX_ENTRIES = 12;
/** Pages at most, and how far they may be from the first one: distances are 32 bits with a sign. */
const MAX_PAGES = 14;
export const MAX_DISTANCE = 2 ** 30;
/** Targets of indirect jumps at most: they are a byte in the region's table. */
const MAX_TARGETS = 200;
/** Instructions of a function that is taken along with its callers. */
const MAX_SMALL = 30;
/** Procedures at most: each takes room beside the region. */
const MAX_PROCEDURES = 40;

/** Code as the region compiler sees it, by distance from the page that the region begins in. */
export interface CodeSource {
  /** @returns undefined where the interpreter has to do what is there */
  instruction(offset: number): DecodedInstruction | undefined;
  /** Whether the interpreter has begun a block there: somebody has jumped to it. */
  wasEntered(offset: number): boolean;
  /** Whether another region begins there. */
  hasGate(offset: number): boolean;
  /** All such addresses of the page that begins at `offset`. */
  enteredIn(offset: number): readonly number[];
  /** Physical address of the page that begins at `offset`; undefined: its code cannot be had. */
  pageAt(offset: number): number | undefined;
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
  /** Places in `blocks` where the last instruction of a block may lead if it is a return or an indirect jump, by the block's place. */
  readonly dynamic: ReadonlyMap<number, readonly number[]>;
  /** Physical addresses of the pages that the instructions are in, by distance from the first. */
  readonly pages: ReadonlyMap<number, number>;
}

export const PAGE = 4096;
/** First byte of the page of a distance, which may be negative. */
export const pageOf = (offset: number): number => Math.floor(offset / PAGE) * PAGE;
const isConditional = (row: Row): boolean => row.options.cc !== undefined;
const isCall = (row: Row): boolean => row.form === "call" || row.form === "callIndirect";
const isReturn = (row: Row): boolean => row.form === "ret" || row.form === "retImmediate";
/** Distance of a direct jump's target. */
function targetOf({ offset, decoded }: RegionInstruction): number | undefined {
  const { row, records } = decoded;
  if (!isConditional(row) && row.form !== "jmp" && row.form !== "call") return undefined;
  const { immLow, immHigh } = records.at(-1)!;
  if (immHigh !== immLow >> 31) return undefined;
  return pageOf(offset) + immLow;
}
/** Formulas, and procedures behind them; far transfers are the interpreter's. */
function isTaken({ row, records }: DecodedInstruction): boolean {
  const last = records.at(-1)!;
  if (records.slice(0, -1).some(({ form }) => form.facts.canLeave)) return false;
  if (last.raw !== undefined) return !/^(farTransfer|legacy)/.test(last.form.name);
  if (row.options.ends === true)
    return ["jmp", "call", "ret", "retImmediate", "jmpIndirect", "callIndirect"].includes(row.form);
  return isConditional(row) || !last.form.facts.canLeave;
}

/** @returns undefined where there is nothing to compile */
export function discoverRegion(source: CodeSource, start: number): Region | undefined {
  const found = new Map<number, RegionInstruction>();
  const leaders = new Set<number>([start]);
  const afterCalls = new Set<number>();
  const indirect = new Map<number, readonly number[]>();
  const pages: number[] = [pageOf(start)];
  const queue = [start];
  let procedures = 0;
  /** Functions that are compiled into every region that calls them, other regions or not. */
  const small = new Set<number>();
  /** What is another region's is left to it: it is as near as the next jump. */
  const isOthers = (offset: number): boolean => offset !== start && !small.has(offset) && source.hasGate(offset);
  /** Whether code at `offset` may be taken in; if so its page is one of the region's. */
  const isNear = (offset: number): boolean => {
    const page = pageOf(offset);
    if (pages.includes(page)) return true;
    if (pages.length >= MAX_PAGES || Math.abs(page - pages[0]!) > MAX_DISTANCE || source.pageAt(page) === undefined)
      return false;
    pages.push(page);
    return true;
  };
  const follow = (offset: number, always: boolean): void => {
    if (leaders.has(offset)) return;
    // isNear comes last: it takes the page in
    if (!found.has(offset) && ((!always && !source.wasEntered(offset)) || isOthers(offset) || !isNear(offset))) return;
    leaders.add(offset);
    queue.push(offset);
  };
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    for (let offset = at; found.size < MAX_INSTRUCTIONS && !found.has(offset); ) {
      if (isOthers(offset) || !isNear(offset)) break;
      const decoded = source.instruction(offset);
      if (decoded === undefined || !isTaken(decoded)) break;
      // one that lies in two pages
      if (pageOf(offset + decoded.length - 1) !== pageOf(offset) && !isNear(offset + decoded.length - 1)) break;
      if (decoded.records.at(-1)!.raw !== undefined && ++procedures > MAX_PROCEDURES) break;
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
      if (target !== undefined && row.form === "call" && isSmall(source, target)) small.add(target);
      if (target !== undefined) follow(target, row.form === "jmp");
      if (row.form === "jmpIndirect" && indirect.size === 0) {
        // nearest first: a jump table's targets are in the jump's own function
        const from = instruction.offset;
        const near = [-4096, 0, 4096]
          .map((distance) => pageOf(from) + distance)
          .filter((page) => source.pageAt(page) !== undefined)
          .flatMap((page) => [...source.enteredIn(page)])
          .toSorted((a, b) => Math.abs(a - from) - Math.abs(b - from))
          .slice(0, MAX_TARGETS);
        indirect.set(from, near);
        for (const to of near) follow(to, true);
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
  const dynamic = new Map<number, readonly number[]>(returnsOf(blocks, byOffset));
  blocks.forEach((block, place) => {
    const near = indirect.get(block.instructions.at(-1)!.offset);
    if (near !== undefined)
      dynamic.set(
        place,
        [...new Set(near.map(inRegion))].filter((b) => b >= 0),
      );
  });
  const used = new Map<number, number>();
  for (const { offset, decoded } of found.values())
    for (const page of [pageOf(offset), pageOf(offset + decoded.length - 1)]) used.set(page, source.pageAt(page)!);
  return { blocks, byOffset, entries, dynamic, pages: used };
}

/** Whether a function is a few instructions without calls. */
function isSmall(source: CodeSource, start: number): boolean {
  const seen = new Set<number>();
  const queue = [start];
  for (let at = queue.pop(); at !== undefined; at = queue.pop())
    for (let offset = at; !seen.has(offset); ) {
      if (offset !== start && pageOf(offset) !== pageOf(start)) return false;
      const decoded = seen.size < MAX_SMALL ? source.instruction(offset) : undefined;
      if (decoded === undefined || isCall(decoded.row)) return false;
      seen.add(offset);
      const target = targetOf({ offset, decoded });
      if (target !== undefined && source.wasEntered(target)) queue.push(target);
      offset += decoded.length;
      if (decoded.row.options.ends === true || (isConditional(decoded.row) && !source.wasEntered(offset))) break;
    }
  return true;
}

/** Where the returns of functions that are called in the region lead: behind the calls of the function that the return is of. */
function returnsOf(
  blocks: readonly BasicBlock[],
  byOffset: ReadonlyMap<number, number>,
): ReadonlyMap<number, readonly number[]> {
  const found = new Map<number, Set<number>>();
  /** Of each function by its first block: the places behind its calls. */
  const callers = new Map<number, number[]>();
  const rowOf = (block: BasicBlock): Row => block.instructions.at(-1)!.decoded.row;
  for (const block of blocks) {
    if (rowOf(block).form !== "call") continue;
    const callee = block.target === undefined ? undefined : byOffset.get(block.target);
    const back = byOffset.get(block.end);
    if (callee === undefined || back === undefined) continue;
    callers.set(callee, [...(callers.get(callee) ?? []), back]);
  }
  for (const [callee, backs] of callers) {
    const seen = new Set<number>([callee]);
    for (const place of seen) {
      const block = blocks[place]!;
      const row = rowOf(block);
      if (isReturn(row)) {
        const to = found.get(place) ?? new Set();
        for (const back of backs) to.add(back);
        found.set(place, to);
        continue;
      }
      // past a call, not into it
      const next = isCall(row) ? [block.end] : [...(block.fallsThrough ? [block.end] : []), block.target];
      for (const offset of next) {
        const to = offset === undefined ? undefined : byOffset.get(offset);
        if (to !== undefined) seen.add(to);
      }
    }
  }
  return new Map([...found].map(([place, to]) => [place, [...to]]));
}
