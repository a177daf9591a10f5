/**
 * What a peer said that it has beyond its acknowledgement: the scoreboard of RFC 6675 "Definitions" and "Keeping Track of SACK
 * Information", as ranges that are disjoint, in order and bounded in number.
 *
 *     una    left0    right0    left1   right1                 max
 *      │ hole  │ has it  │  hole  │ has it │ on its way, or lost │
 *
 * What a peer says may be anything. It is never more than advice: a range that does not fit is left out, and costs a retransmission.
 */

/** Ranges kept; what is beyond falls out, the highest first: the lowest holes are filled first. */
const MAX_RANGES = 64;
/** RFC 6675 "DupThresh". */
const DUP_THRESH = 3;

/** A hole that `nextHole` found. */
export interface Hole {
  from: number;
  /** The first number behind it. */
  end: number;
}

/** The scoreboard of one sender. Numbers are 32 bits, compared by the sign of their difference. */
export class Scoreboard {
  /** Pairs of left and right edge; made with the first range. */
  #edges: Int32Array | undefined;
  #count = 0;
  readonly #hole: Hole = { from: 0, end: 0 };

  /** Ranges held. */
  get count(): number {
    return this.#count;
  }

  /**
   * Takes a range in: RFC 2018 "Interpreting the Sack Option". One that is reversed, that does not begin behind `una` (so that it tells of
   * what came twice: RFC 2883) or goes beyond `max` is not looked at.
   *
   * @returns whether there was something new in it
   */
  add(left: number, right: number, una: number, max: number): boolean {
    const start = (left - una) | 0;
    const stop = (right - una) | 0;
    if (start <= 0 || stop <= start || stop > ((max - una) | 0)) return false;
    this.#edges ??= new Int32Array(2 * MAX_RANGES);
    const edges = this.#edges;
    // ranges [first, last) touch it
    let first = 0;
    while (first < this.#count && ((edges[2 * first + 1]! - left) | 0) < 0) first++;
    let last = first;
    let low = left;
    let high = right;
    while (last < this.#count && ((edges[2 * last]! - right) | 0) <= 0) {
      if (((edges[2 * last]! - left) | 0) <= 0 && ((edges[2 * last + 1]! - right) | 0) >= 0) return false;
      if (((edges[2 * last]! - low) | 0) < 0) low = edges[2 * last]!;
      if (((edges[2 * last + 1]! - high) | 0) > 0) high = edges[2 * last + 1]!;
      last++;
    }
    if (first === last) {
      if (first === MAX_RANGES) return false;
      if (this.#count === MAX_RANGES) this.#count--;
      edges.copyWithin(2 * first + 2, 2 * first, 2 * this.#count);
      this.#count++;
    } else if (last > first + 1) {
      edges.copyWithin(2 * first + 2, 2 * last, 2 * this.#count);
      this.#count -= last - first - 1;
    }
    edges[2 * first] = low;
    edges[2 * first + 1] = high;
    return true;
  }

  /**
   * Everything below `una` is acknowledged. If that is within a range, the peer has thrown away what it said that it had (RFC 2018 "Data
   * Receiver Reneging"), and nothing that it said counts.
   */
  advance(una: number): void {
    const edges = this.#edges;
    if (edges === undefined || this.#count === 0) return;
    let gone = 0;
    while (gone < this.#count && ((edges[2 * gone + 1]! - una) | 0) <= 0) gone++;
    if (gone < this.#count && ((edges[2 * gone]! - una) | 0) <= 0) gone = this.#count;
    if (gone === 0) return;
    edges.copyWithin(0, 2 * gone, 2 * this.#count);
    this.#count -= gone;
  }

  /** Forgets all. */
  clear(): void {
    this.#count = 0;
  }

  /** Bytes that the peer has below a number. */
  below(seq: number): number {
    let n = 0;
    for (let i = 0; i < this.#count; i++) {
      const before = (seq - this.#edges![2 * i]!) | 0;
      if (before <= 0) break;
      n += Math.min(before, (this.#edges![2 * i + 1]! - this.#edges![2 * i]!) | 0);
    }
    return n;
  }

  /** RFC 6675 "IsLost (SeqNum)" for the first number that is not acknowledged. */
  isFirstLost(mss: number): boolean {
    return this.#lostHoles(mss) > 0;
  }

  /**
   * RFC 6675 "SetPipe": bytes that are on their way by what is known.
   *
   * @param highRxt what is below it and missing has been sent again
   * @param mss 0: everything below the highest range is lost
   */
  pipe(una: number, max: number, highRxt: number, mss: number): number {
    const lost = this.#lostHoles(mss);
    let from = una;
    let n = 0;
    for (let i = 0; i <= this.#count; i++) {
      const end = i < this.#count ? this.#edges![2 * i]! : max;
      if (i >= lost) n += (end - from) | 0;
      const again = ((highRxt - end) | 0) < 0 ? highRxt : end;
      n += Math.max(0, (again - from) | 0);
      if (i < this.#count) from = this.#edges![2 * i + 1]!;
    }
    return n;
  }

  /**
   * RFC 6675 "NextSeg ()", rules (1) and, with an `mss` of 0, (3).
   *
   * @param from not below `una`
   * @returns what is missing from `from` on, below the highest range; valid until the next call; undefined if nothing of it is lost
   */
  nextHole(from: number, mss: number): Hole | undefined {
    const lost = this.#lostHoles(mss);
    let at = from;
    for (let i = 0; i < lost; i++) {
      if (((this.#edges![2 * i]! - at) | 0) > 0) {
        this.#hole.from = at;
        this.#hole.end = this.#edges![2 * i]!;
        return this.#hole;
      }
      if (((this.#edges![2 * i + 1]! - at) | 0) > 0) at = this.#edges![2 * i + 1]!;
    }
    return undefined;
  }

  /** What is missing from `from` on, which may be nothing, below `max`, lost or not. */
  missing(from: number, max: number): Hole {
    const hole = this.#hole;
    hole.from = from;
    hole.end = max;
    for (let i = 0; i < this.#count; i++) {
      if (((this.#edges![2 * i]! - hole.from) | 0) > 0) {
        hole.end = this.#edges![2 * i]!;
        break;
      }
      if (((this.#edges![2 * i + 1]! - hole.from) | 0) > 0) hole.from = this.#edges![2 * i + 1]!;
    }
    return hole;
  }

  /** Holes that are lost: so many from the first on, as there are `DUP_THRESH` ranges or more than two segments' bytes above them. */
  #lostHoles(mss: number): number {
    let bytes = 0;
    for (let i = this.#count - 1; i >= 0; i--) {
      bytes += (this.#edges![2 * i + 1]! - this.#edges![2 * i]!) | 0;
      if (this.#count - i >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss) return i + 1;
    }
    return 0;
  }
}
