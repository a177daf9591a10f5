/**
 * One deterministic machine twice, with regions and interpreted: for finding where the two tiers part (cpu/region/lockstep.ts). Each
 * slice of the compiled machine is followed by the same number of instructions of the other, with everything from outside at the same
 * quantum; registers are compared after every slice, RAM at intervals. At a difference both are made anew and run to the last
 * place where they were equal; from there the slices are smaller, down to one execution of one region.
 *
 * A run takes some three times as long as an interpreted one, a difference found some of that again.
 */
import { disassemble } from "../cpu/decode/disassemble.js";
import { Head, Vp } from "../cpu/layout.js";
import {
  formatRegisters,
  type RegisterState,
  registerDifferences,
  registersOf,
  runExactly,
  sameExit,
} from "../cpu/region/lockstep.js";
import type { VirtualProcessor } from "../cpu/vp/virtual-processor.js";
import type { DeterministicMachine } from "./deterministic.js";
import type { ToDevices } from "./device-messages.js";
import type { ToProcessor } from "./messages.js";

/** Instructions between two comparisons of all of RAM. */
const RAM_EVERY = 2 ** 24;
/** Budgets of the slices of the search, in the order they are tried: a region that is left at each back edge may hide the mistake. */
const SEARCH_BUDGETS = [1, 4, 16, 64, 256, 1024, 4096];
const MAX_TRACE = 400;
/** Pages that a search looks at. */
const MAX_PAGES = 2;

/** What comes from outside. */
interface Mail {
  readonly processor: readonly ToProcessor[];
  readonly devices: readonly ToDevices[];
}
/** Queues that a machine takes its mail from. */
export interface Inbox {
  readonly processor: ToProcessor[];
  readonly devices: ToDevices[];
  /** Tells the machine that there is some. */
  bump(): void;
}
export interface LockstepSide {
  readonly machine: DeterministicMachine;
  readonly inbox: Inbox;
}
/** Makes one of the two. @param first it is the one whose output is seen */
export type MakeMachine = (regions: boolean, first: boolean) => LockstepSide;

interface Slice {
  readonly used: number;
  readonly reason: number;
  readonly before: RegisterState;
  readonly after: RegisterState;
  readonly gated: boolean;
  /** Of the pages that are looked at. */
  readonly memory: readonly Int32Array[];
}
interface Found {
  /** Whether the slice began at the way into a region. */
  readonly gated?: boolean;
  readonly lines: readonly string[];
  readonly before: RegisterState;
  readonly instructions: number;
  /** What the interpreter ran, where it was told to say. */
  readonly trace: readonly string[];
  /** RAM offsets of the pages that differ. */
  readonly pages: readonly number[];
  readonly interpreted?: RegisterState;
  readonly compiled?: RegisterState;
}
/** How closely to look, from where on. */
interface Search {
  readonly from: number;
  readonly budget?: number;
  /** Pages to compare after each slice. */
  readonly pages: readonly number[];
}

function pageDifference(page: number, interpreted: Int32Array, compiled: Int32Array): string[] {
  const i = interpreted.findIndex((word, k) => word !== compiled[k]);
  if (i < 0) return [];
  const [a, b] = [interpreted, compiled].map((words) => (words[i]! >>> 0).toString(16));
  return [`memory ${(page + i * 4).toString(16)}: interpreted ${a}, compiled ${b}`];
}

function isGate(vp: VirtualProcessor): boolean {
  const physical = vp.runtime.peekCode();
  if (physical === -1) return false;
  const block = vp.runtime.findBlock(physical, vp.view.getUint32(vp.base + Vp.mode, true));
  return block !== 0 && vp.view.getUint32(block + Head.region, true) !== 0;
}

/** Two machines from the start. */
class Pair {
  readonly #compiled: LockstepSide;
  readonly #interpreted: LockstepSide;
  readonly #search: Search | undefined;
  /** Slices that the second has still to follow. */
  readonly #slices: Slice[] = [];
  #equalRam = 0;
  found: Found | undefined;
  ended = false;

  constructor(make: MakeMachine, first: boolean, search?: Search) {
    this.#compiled = make(true, first);
    this.#interpreted = make(false, false);
    this.#search = search;
    const leader = this.#compiled.machine.thread.partition.vp;
    leader.onRun = (budget, run) => this.#lead(budget, run);
    const follower = this.#interpreted.machine.thread.partition.vp;
    follower.onRun = (_budget, run) => this.#follow(run);
  }
  get outputBlocked(): boolean {
    return this.#compiled.machine.outputBlocked;
  }
  get retired(): number {
    return this.#compiled.machine.thread.partition.vp.retired;
  }
  /** Where all of RAM was last equal. */
  get equalRam(): number {
    return this.#equalRam;
  }
  #lead(budget: number, run: (budget: number) => number): number {
    const { vp } = this.#compiled.machine.thread.partition;
    const small = this.#search?.budget;
    const end = vp.retired + budget;
    for (;;) {
      const closely = small !== undefined && vp.retired >= this.#search!.from;
      const before = registersOf(vp);
      const gated = closely && isGate(vp);
      let reason: number;
      try {
        reason = run(closely ? Math.min(small, Math.max(0, end - vp.retired)) : budget);
      } catch (error) {
        // a trap in a region: what there is to say is where it began
        this.found = {
          lines: [`the compiled machine failed: ${error instanceof Error ? error.message : String(error)}`],
          before,
          gated,
          instructions: 0,
          trace: [],
          pages: [],
        };
        throw error;
      }
      // a sample looks at the page that runs, which marks it as used: both do
      vp.runtime.peekCode();
      this.#slices.push({
        used: vp.retired - before.retired,
        reason,
        before,
        gated,
        after: registersOf(vp),
        memory: this.#watched(vp.retired).map((page) => this.#page(this.#compiled, page).slice()),
      });
      if (!closely || reason !== 0 || vp.retired > end) return reason;
    }
  }
  #follow(run: (budget: number) => number): number {
    const { partition } = this.#interpreted.machine.thread;
    const { vp } = partition;
    let reason = 0;
    for (let slice = this.#slices.shift(); slice !== undefined; slice = this.#slices.shift()) {
      const trace: string[] = [];
      const tells = this.#search?.budget !== undefined && vp.retired >= this.#search.from;
      const tell = (): void => {
        const code = partition.codeAtRip();
        const text = code === undefined ? "(fetch faults)" : disassemble(code.bytes, code.code, vp.rip).text;
        if (trace.length < MAX_TRACE) trace.push(`${vp.rip.toString(16)} ${text}`);
      };
      reason = runExactly(vp, slice.used, run, tells ? tell : undefined);
      vp.runtime.peekCode();
      const after = registersOf(vp);
      const lines = registerDifferences(after, slice.after);
      if (!sameExit(reason, slice.reason)) lines.unshift(`exit: interpreted ${reason}, compiled ${slice.reason}`);
      this.#watched(vp.retired).forEach((page, i) => {
        lines.push(...pageDifference(page, this.#page(this.#interpreted, page), slice!.memory[i]!));
      });
      if (lines.length > 0) {
        const { before, used, gated } = slice;
        const pages = [...(this.#search?.pages ?? [])];
        this.found ??= {
          lines,
          before,
          gated,
          instructions: used,
          trace,
          pages,
          interpreted: after,
          compiled: slice.after,
        };
        this.#slices.length = 0;
      }
    }
    return reason;
  }
  /** Pages to compare behind a slice that ends at `retired`. */
  #watched(retired: number): readonly number[] {
    return this.#search === undefined || retired < this.#search.from ? [] : this.#search.pages.slice(0, MAX_PAGES);
  }
  #words(side: LockstepSide): Int32Array {
    const { ram } = side.machine.thread.partition.vp;
    return new Int32Array(ram.buffer, ram.byteOffset, ram.byteLength >> 2);
  }
  #page(side: LockstepSide, page: number): Int32Array {
    return this.#words(side).subarray(page >> 2, (page >> 2) + 1024);
  }
  #compareRam(): void {
    const [a, b] = [this.#words(this.#interpreted), this.#words(this.#compiled)];
    const pages: number[] = [];
    for (let i = 0; i < a.length; i++)
      if (a[i] !== b[i]) {
        pages.push((i >> 10) << 12);
        i |= 1023;
      }
    if (pages.length === 0) {
      this.#equalRam = this.retired;
      return;
    }
    const before = registersOf(this.#compiled.machine.thread.partition.vp);
    const lines = pages
      .slice(0, 8)
      .flatMap((page) => pageDifference(page, this.#page(this.#interpreted, page), this.#page(this.#compiled, page)));
    this.found ??= { lines, before, instructions: 0, trace: [], pages };
  }
  /** @param mail for this quantum */
  quantum(mail: Mail): void {
    for (const { inbox } of [this.#compiled, this.#interpreted]) {
      inbox.processor.push(...mail.processor);
      inbox.devices.push(...mail.devices);
      if (mail.processor.length > 0) inbox.bump();
    }
    let goesOn: boolean;
    try {
      goesOn = this.#compiled.machine.quantum();
    } catch (error) {
      if (this.found !== undefined) return;
      throw error;
    }
    const other = this.#interpreted.machine.quantum();
    if (this.found !== undefined) return;
    if (goesOn !== other || this.#slices.length > 0) {
      const before = registersOf(this.#compiled.machine.thread.partition.vp);
      const lines = [`one machine has ended: interpreted ${!other}, compiled ${!goesOn}`];
      this.found = { lines, before, instructions: 0, trace: [], pages: [] };
      return;
    }
    this.ended = !goesOn;
    if (this.ended || (this.#search === undefined && this.retired - this.#equalRam >= RAM_EVERY)) this.#compareRam();
  }
}

/** Stands where a deterministic machine would. */
export class LockstepMachine {
  readonly #make: MakeMachine;
  readonly #pair: Pair;
  readonly #inbox: Inbox;
  /** All mail so far, by quantum: what a search repeats. */
  readonly #mail = new Map<number, Mail>();
  #quanta = 0;

  /** @param inbox what comes from outside is put there */
  constructor(make: MakeMachine, inbox: Inbox) {
    this.#make = make;
    this.#inbox = inbox;
    this.#pair = new Pair(make, true);
  }
  get outputBlocked(): boolean {
    return this.#pair.outputBlocked;
  }
  /** @returns false when the machine has ended @throws the report of a difference */
  quantum(): boolean {
    const mail = { processor: this.#inbox.processor.splice(0), devices: this.#inbox.devices.splice(0) };
    if (mail.processor.length + mail.devices.length > 0) this.#mail.set(this.#quanta, mail);
    this.#quanta++;
    this.#pair.quantum(mail);
    const { found, equalRam, ended } = this.#pair;
    if (found !== undefined) throw new Error(this.#report(this.#bisect(found, equalRam)));
    return !ended;
  }
  #replay(search: Search): Found | undefined {
    const pair = new Pair(this.#make, false, search);
    for (let n = 0; n < this.#quanta && pair.found === undefined && !pair.ended; n++)
      pair.quantum(this.#mail.get(n) ?? { processor: [], devices: [] });
    return pair.found;
  }
  #bisect(found: Found, equalRam: number): Found {
    let best = found;
    // a difference in memory was made some time since RAM was last equal: by the pages that differ now, the slice is found
    if (found.pages.length > 0) best = this.#replay({ from: equalRam, pages: found.pages }) ?? found;
    for (const budget of SEARCH_BUDGETS) {
      const closer = this.#replay({ from: best.before.retired, budget, pages: best.pages });
      if (closer !== undefined) return closer;
    }
    return best;
  }
  #report(found: Found): string {
    const { before, interpreted, compiled, trace } = found;
    const at = before.block;
    const rip = new DataView(at.buffer, at.byteOffset).getBigUint64(Vp.rip, true);
    return [
      `the tiers differ in ${found.instructions} instructions behind ${before.retired}, from ${rip.toString(16)}${found.gated === true ? ", where a region begins" : ""}`,
      ...found.lines,
      ...(trace.length === 0 ? [] : ["instructions, as interpreted:", ...trace]),
      `before:      ${formatRegisters(before)}`,
      ...(interpreted === undefined ? [] : [`interpreted: ${formatRegisters(interpreted)}`]),
      ...(compiled === undefined ? [] : [`compiled:    ${formatRegisters(compiled)}`]),
    ].join("\n");
  }
}
