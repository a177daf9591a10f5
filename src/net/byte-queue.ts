/** What a connection holds: bytes to send, and bytes that came before their turn. */

/** Chunks below this are put together, so that many small writes do not make a long list. */
const SMALL = 4096;
const TAIL_BYTES = 16_384;

/** How many bytes all connections together may hold, and hold. */
export class Budget {
  readonly limit: number;
  used = 0;

  /** @param limit in bytes */
  constructor(limit: number) {
    this.limit = limit;
  }
  /** What one connection may hold now, of at most `most`: less and less as the budget is used up, but never nothing. */
  share(most: number): number {
    return Math.min(most, Math.max(8192, (this.limit - this.used) >> 3));
  }
}

/** Bytes in order, added in chunks that the queue then owns, taken away at the front, read anywhere. */
export class SendQueue {
  readonly #budget: Budget;
  #chunks: Uint8Array[] = [];
  #head = 0;
  /** Bytes of the first chunk that are gone. */
  #gone = 0;
  /** The last chunk is ours and has room: bytes of it in use. */
  #tail: Uint8Array | undefined;
  #tailUsed = 0;
  length = 0;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  /** @param chunk not changed by anybody afterwards */
  push(chunk: Uint8Array): void {
    const n = chunk.length;
    if (n === 0) return;
    this.length += n;
    this.#budget.used += n;
    if (n >= SMALL) {
      this.#tail = undefined;
      this.#chunks.push(chunk);
      return;
    }
    if (this.#tail === undefined || this.#tailUsed + n > TAIL_BYTES) {
      this.#tail = new Uint8Array(TAIL_BYTES);
      this.#tailUsed = 0;
      this.#chunks.push(this.#tail.subarray(0, 0));
    }
    this.#tail.set(chunk, this.#tailUsed);
    this.#tailUsed += n;
    this.#chunks[this.#chunks.length - 1] = this.#tail.subarray(0, this.#tailUsed);
  }

  /** Copies `length` bytes from `offset` on. The caller knows that they are there. */
  copy(offset: number, length: number, target: Uint8Array, at: number): void {
    let i = this.#head;
    let from = offset + this.#gone;
    while (from >= this.#chunks[i]!.length) from -= this.#chunks[i++]!.length;
    let left = length;
    let to = at;
    while (left > 0) {
      const chunk = this.#chunks[i++]!;
      const n = Math.min(left, chunk.length - from);
      target.set(n === chunk.length ? chunk : chunk.subarray(from, from + n), to);
      to += n;
      left -= n;
      from = 0;
    }
  }

  /** Takes bytes away at the front. */
  drop(bytes: number): void {
    this.length -= bytes;
    this.#budget.used -= bytes;
    let left = bytes + this.#gone;
    while (this.#head < this.#chunks.length && left >= this.#chunks[this.#head]!.length) {
      left -= this.#chunks[this.#head]!.length;
      this.#chunks[this.#head++] = EMPTY;
    }
    this.#gone = left;
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#head = 0;
      this.#tail = undefined;
    } else if (this.#head > 64) {
      this.#chunks = this.#chunks.slice(this.#head);
      this.#head = 0;
    }
  }

  clear(): void {
    this.drop(this.length);
  }
}
const EMPTY = new Uint8Array(0);

/** Bytes of a piece that came early, from a sequence number on. */
interface EarlyPiece {
  readonly from: number;
  readonly bytes: Uint8Array;
}
/** Pieces held at most, beside the bound in bytes that the window is: a window of segments that are not long. */
const MAX_EARLY = 256;
/** What a piece costs beside its bytes, so that many small ones are not for nothing. */
const PIECE_BYTES = 128;

/** Segments that came before their turn: disjoint, in order. */
export class EarlyQueue {
  readonly #budget: Budget;
  readonly #pieces: EarlyPiece[] = [];

  constructor(budget: Budget) {
    this.#budget = budget;
  }
  get count(): number {
    return this.#pieces.length;
  }

  /** Copies what is not there yet. A full queue takes nothing: the sender has to send again. */
  add(seq: number, bytes: Uint8Array): void {
    let from = seq;
    let rest = bytes;
    const pieces = this.#pieces;
    for (let i = 0; rest.length > 0 && pieces.length < MAX_EARLY; i++) {
      const next = pieces[i];
      // what is before the next piece is new
      const gap = next === undefined ? rest.length : Math.min(rest.length, Math.max(0, (next.from - from) | 0));
      if (gap > 0) {
        pieces.splice(i++, 0, { from, bytes: rest.slice(0, gap) });
        this.#budget.used += gap + PIECE_BYTES;
      }
      if (next === undefined) return;
      const skip = (next.from + next.bytes.length - from) | 0;
      if (skip <= 0) continue;
      rest = rest.subarray(Math.min(rest.length, skip));
      from = (from + skip) | 0;
    }
  }

  /** @returns what is due at `seq`, taken out; undefined if there is a gap */
  take(seq: number): Uint8Array | undefined {
    for (;;) {
      const first = this.#pieces[0];
      if (first === undefined || ((first.from - seq) | 0) > 0) return undefined;
      this.#pieces.shift();
      this.#budget.used -= first.bytes.length + PIECE_BYTES;
      const old = (seq - first.from) | 0;
      if (old < first.bytes.length) return first.bytes.subarray(old);
    }
  }

  /**
   * The ranges held, neighbours joined, the one with `latest` first: RFC 2018 "Generating Sack Options".
   *
   * @param into gets pairs of left and right edge
   * @returns how many ranges, at most `most`
   */
  blocks(latest: number, into: Int32Array, most: number): number {
    let n = 0;
    let left = 0;
    let right = 0;
    const put = (): void => {
      const isLatest = ((latest - left) | 0) >= 0 && ((latest - right) | 0) < 0;
      if (isLatest && n > 0) {
        const last = n < most ? n++ : n - 1;
        into.copyWithin(2, 0, 2 * last);
        into[0] = left;
        into[1] = right;
      } else if (n < most) {
        into[2 * n] = left;
        into[2 * n + 1] = right;
        n++;
      }
    };
    for (const [i, { from, bytes }] of this.#pieces.entries()) {
      if (i > 0 && from === right) right = (right + bytes.length) | 0;
      else {
        if (i > 0) put();
        left = from;
        right = (from + bytes.length) | 0;
      }
    }
    if (this.#pieces.length > 0) put();
    return n;
  }

  clear(): void {
    for (const { bytes } of this.#pieces) this.#budget.used -= bytes.length + PIECE_BYTES;
    this.#pieces.length = 0;
  }
}
