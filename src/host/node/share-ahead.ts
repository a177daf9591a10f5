/**
 * A tree of a share that is listed ahead of a guest whose many threads go through it file by file at once (git looks at files with 20).
 * On one processor they would ask faster than the listing gets on: what they look up in a folder that is still to be listed is answered
 * once it is. All of it is bounded, as nobody says whether the listing goes on.
 */
import type { Node } from "./share-nodes.js";

/** The longest that a call waits. */
const EACH_MS = 200;
/** By then the guest has begun to list; and between two calls of a listing no more goes by. */
const START_MS = 500;
const QUIET_MS = 250;
/** For one tree, without one folder listed that was waited for; and altogether. */
const USELESS_MS = 3000;
const ALL_MS = 15_000;
/** Waiting calls; a connection takes no more than 64 whose answers are late, and the listing's must be among them. */
const MAX_WAITING = 32;
const CHECK_MS = 25;

interface Waiting {
  readonly since: number;
  readonly answer: () => void;
}

export class ListingAhead {
  readonly #top: Node;
  readonly #now: () => number;
  readonly #last: number;
  /** Without a folder that was waited for it is over then; at #last in any case. */
  #until: number;
  /** Without another call of the listing it is over then. */
  #quietAt: number;
  readonly #listed = new Set<Node>();
  readonly #waiting = new Map<Node, Waiting[]>();
  #count = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Nothing waits for it any more. */
  #isOver = false;
  /** Calls waited for what did not come, or took too long. */
  wasInVain = false;

  /**
   * @param top the tree's uppermost folder
   * @param now in ms
   */
  constructor(top: Node, now: () => number) {
    this.#top = top;
    this.#now = now;
    const at = now();
    this.#last = at + ALL_MS;
    this.#until = at + USELESS_MS;
    this.#quietAt = at + START_MS;
  }
  get isOver(): boolean {
    if (!this.#isOver && this.#now() >= Math.min(this.#until, this.#quietAt)) this.end();
    return this.#isOver;
  }
  covers(folder: Node): boolean {
    let at: Node | undefined = folder;
    while (at !== undefined && at !== this.#top) at = at.places[0]?.parent;
    return at !== undefined;
  }
  /** @returns undefined: a call about the folder is answered at once */
  wait(folder: Node): Promise<void> | undefined {
    if (this.isOver || this.#count >= MAX_WAITING || this.#listed.has(folder) || !this.covers(folder)) return undefined;
    return new Promise((answer) => {
      const waiting = this.#waiting.get(folder) ?? [];
      this.#waiting.set(folder, waiting);
      waiting.push({ since: this.#now(), answer });
      this.#count++;
      this.#timer ??= setInterval(() => this.#check(), CHECK_MS);
    });
  }
  /** Behind the answer of one call that lists it: the guest's kernel holds the listing up for a name that it waits for. */
  listed(folder: Node, isWhole: boolean): void {
    if (this.#isOver || !this.covers(folder)) return;
    const now = this.#now();
    this.#quietAt = now + QUIET_MS;
    if (this.#waiting.has(folder)) this.#until = Math.min(now + USELESS_MS, this.#last);
    if (isWhole) this.#listed.add(folder);
    this.forget(folder);
  }
  forget(folder: Node): void {
    const waiting = this.#waiting.get(folder);
    if (waiting === undefined) return;
    this.#waiting.delete(folder);
    this.#answer(waiting);
  }
  #answer(waiting: readonly Waiting[]): void {
    this.#count -= waiting.length;
    for (const { answer } of waiting) answer();
    if (this.#count === 0) this.#rest();
  }
  #rest(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
  #check(): void {
    if (this.isOver) return;
    const before = this.#now() - EACH_MS;
    for (const [folder, waiting] of [...this.#waiting]) {
      const late = waiting.findIndex((w) => w.since > before);
      if (late === 0) continue;
      this.#answer(waiting.splice(0, late < 0 ? waiting.length : late));
      if (waiting.length === 0) this.#waiting.delete(folder);
    }
  }
  end(): void {
    this.#isOver = true;
    this.wasInVain = this.#count > 0 && (this.#listed.size === 0 || this.#now() >= this.#until);
    for (const folder of [...this.#waiting.keys()]) this.forget(folder);
  }
  /** The share is closed: nothing is looked up in it any more. */
  close(): void {
    this.#isOver = true;
    this.#waiting.clear();
    this.#rest();
  }
}
