/**
 * Deadlines of many connections: a heap in which moving a deadline to later costs nothing. The owner of the network asks for the next
 * one and says when it has come; nothing here knows what time it is.
 */

/** One deadline. */
export class Timer {
  readonly #timers: Timers;
  readonly #fire: (now: number) => void;
  /** When it is due, in ns; Infinity: not armed. */
  when = Number.POSITIVE_INFINITY;
  /** Where it stands in the heap by, at the latest `when`; and its place there, -1 if it is not. */
  heapWhen = 0;
  place = -1;

  /** @param fire called once each time that it is due; it is not armed then */
  constructor(timers: Timers, fire: (now: number) => void) {
    this.#timers = timers;
    this.#fire = fire;
  }
  get isArmed(): boolean {
    return this.when !== Number.POSITIVE_INFINITY;
  }
  set(when: number): void {
    this.when = when;
    this.#timers.moved(this);
  }
  cancel(): void {
    this.when = Number.POSITIVE_INFINITY;
  }
  /** For the heap alone. */
  fire(now: number): void {
    this.when = Number.POSITIVE_INFINITY;
    this.#fire(now);
  }
}

/** All deadlines of one owner. */
export class Timers {
  readonly #heap: Timer[] = [];
  readonly #onEarlier: () => void;

  /** @param onEarlier the next deadline came nearer */
  constructor(onEarlier: () => void = () => {}) {
    this.#onEarlier = onEarlier;
  }

  /** When something is due, in ns; Infinity if nothing will ever be. */
  next(): number {
    for (;;) {
      const top = this.#heap[0];
      if (top === undefined) return Number.POSITIVE_INFINITY;
      if (top.when === top.heapWhen) return top.when;
      this.#settle(top);
    }
  }

  /** Fires what is due at `now`, in the order of time; what is armed meanwhile for before `now` too, to a bound. */
  runDue(now: number): void {
    for (let n = 0; n < 100_000 && this.next() <= now; n++) {
      const top = this.#heap[0]!;
      this.#remove(top);
      top.fire(now);
    }
  }

  /** For `Timer` alone. */
  moved(timer: Timer): void {
    if (timer.place < 0) {
      timer.heapWhen = timer.when;
      timer.place = this.#heap.length;
      this.#heap.push(timer);
      this.#up(timer);
    } else if (timer.when < timer.heapWhen) {
      timer.heapWhen = timer.when;
      this.#up(timer);
    } else return;
    if (this.#heap[0] === timer) this.#onEarlier();
  }

  /** The top's time has changed. */
  #settle(top: Timer): void {
    if (top.when === Number.POSITIVE_INFINITY) this.#remove(top);
    else {
      top.heapWhen = top.when;
      this.#down(top);
    }
  }
  #remove(top: Timer): void {
    const last = this.#heap.pop()!;
    top.place = -1;
    if (last === top) return;
    this.#heap[0] = last;
    last.place = 0;
    this.#down(last);
  }
  #up(timer: Timer): void {
    const heap = this.#heap;
    let at = timer.place;
    while (at > 0) {
      const above = heap[(at - 1) >> 1]!;
      if (above.heapWhen <= timer.heapWhen) break;
      heap[at] = above;
      above.place = at;
      at = (at - 1) >> 1;
    }
    heap[at] = timer;
    timer.place = at;
  }
  #down(timer: Timer): void {
    const heap = this.#heap;
    let at = timer.place;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]!.heapWhen < heap[below]!.heapWhen) below++;
      const child = heap[below]!;
      if (child.heapWhen >= timer.heapWhen) break;
      heap[at] = child;
      child.place = at;
      at = below;
    }
    heap[at] = timer;
    timer.place = at;
  }
}
