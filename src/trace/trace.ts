/**
 * The record of what passed between guest and host: each thread keeps its last records in a ring of fixed size, cheap enough
 * to be always on. Nothing is decoded until somebody reads (a report, `--trace`); the decoders are beside the protocols.
 */

/** Kinds of records, by the part that records them; the numbers are in saved traces and stay. */
export const TraceKind = {
  /** a = low word of the control register, b = its high word, c = status. bytes = the input block. */
  hypercall: 1,
  /** a = register, b, c = low and high word. */
  msrWrite: 2,
  /** The same, of what is read. */
  msrRead: 3,
  /** a = SINT, b = vector, c = 1 if it was raised. */
  synicMessage: 4,
  /** a = SINT, b = flag. */
  synicEvent: 5,
  /** a = vector. */
  interrupt: 6,
  /** a = timer, b = 1 direct. */
  timerExpired: 7,
  /** A control message from the guest: a = type. bytes = the message. */
  vmbusIn: 16,
  /** A control message to the guest: a = type, b = VP. */
  vmbusOut: 17,
  /** A ring packet: a = relid, b = packet type, c = payload length. bytes = the payload's beginning. */
  packetIn: 18,
  /** The same, of the host's. */
  packetOut: 19,
  /** The guest signalled a channel: a = relid. */
  signalIn: 20,
  /** The host did. */
  signalOut: 21,
  /** A guest broke a rule: a = relid. bytes = the text (UTF-8). */
  violation: 22,
  /** A service says something: a = relid. bytes = the text (UTF-8). */
  note: 23,
} as const;
export type TraceKind = (typeof TraceKind)[keyof typeof TraceKind];

/** Where parts put their records. Numbers mean what the kind says. */
export interface Trace {
  record(kind: TraceKind, a?: number, b?: number, c?: number, bytes?: Uint8Array, length?: number): void;
  /** A record with a text: a rule that the guest broke, or a note. */
  text(kind: typeof TraceKind.violation | typeof TraceKind.note, relid: number, text: string): void;
}

/** One event of the bus, the processor or a service. `a`, `b`, `c` are what `kind` says. */
export interface TraceRecord {
  /** What happened. */
  readonly kind: TraceKind;
  /** Virtual time in ns. */
  readonly timeNs: number;
  /** By kind. */
  readonly a: number;
  /** By kind. */
  readonly b: number;
  /** By kind. */
  readonly c: number;
  /** The first bytes of what there was. */
  readonly bytes: Uint8Array;
  /** Length of the whole. */
  readonly length: number;
}

/** Bytes of a payload that are kept. */
export const TRACE_BYTES = 256;

/** Records nothing. */
export const NO_TRACE: Trace = { record: () => {}, text: () => {} };

export class TraceRing implements Trace {
  readonly #now: () => number;
  readonly #slots: number;
  readonly #kinds: Uint8Array;
  readonly #times: Float64Array;
  readonly #numbers: Float64Array;
  readonly #lengths: Uint32Array;
  readonly #bytes: Uint8Array;
  /** Records so far. */
  #count = 0;
  #taken = 0;
  readonly #encoder = new TextEncoder();
  /** Called before a record that nobody has taken is overwritten, where a trace file wants all of them. */
  onFull: (() => void) | undefined;

  constructor(now: () => number, slots = 1000) {
    this.#now = now;
    this.#slots = slots;
    this.#kinds = new Uint8Array(slots);
    this.#times = new Float64Array(slots);
    this.#numbers = new Float64Array(slots * 3);
    this.#lengths = new Uint32Array(slots);
    this.#bytes = new Uint8Array(slots * TRACE_BYTES);
  }
  record(kind: TraceKind, a = 0, b = 0, c = 0, bytes?: Uint8Array, length = bytes?.length ?? 0): void {
    if (this.onFull !== undefined && this.#count - this.#taken >= this.#slots) this.onFull();
    const i = this.#count++ % this.#slots;
    this.#kinds[i] = kind;
    this.#times[i] = this.#now();
    this.#numbers[i * 3] = a;
    this.#numbers[i * 3 + 1] = b;
    this.#numbers[i * 3 + 2] = c;
    this.#lengths[i] = length;
    if (bytes === undefined) return;
    const kept = Math.min(length, TRACE_BYTES);
    for (let k = 0; k < kept; k++) this.#bytes[i * TRACE_BYTES + k] = bytes[k]!;
  }
  text(kind: typeof TraceKind.violation | typeof TraceKind.note, relid: number, text: string): void {
    this.record(kind, relid, 0, 0, this.#encoder.encode(text));
  }
  /** The records since the last call, at most as many as the ring holds, oldest first. */
  take(): TraceRecord[] {
    const records = this.#from(Math.max(this.#taken, this.#count - this.#slots));
    this.#taken = this.#count;
    return records;
  }
  /** The last records, oldest first. */
  last(): TraceRecord[] {
    return this.#from(Math.max(0, this.#count - this.#slots));
  }
  #from(first: number): TraceRecord[] {
    const records: TraceRecord[] = [];
    for (let n = first; n < this.#count; n++) {
      const i = n % this.#slots;
      const length = this.#lengths[i]!;
      records.push({
        kind: this.#kinds[i] as TraceKind,
        timeNs: this.#times[i]!,
        a: this.#numbers[i * 3]!,
        b: this.#numbers[i * 3 + 1]!,
        c: this.#numbers[i * 3 + 2]!,
        bytes: this.#bytes.slice(i * TRACE_BYTES, i * TRACE_BYTES + Math.min(length, TRACE_BYTES)),
        length,
      });
    }
    return records;
  }
}
