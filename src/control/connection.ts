/**
 * One end of a control connection: frames, requests by id, streams with credit. Both ends use it. A peer that breaks the rules is
 * cut off, and nothing it sends gets further than here unchecked.
 */
import { hello, PROTOCOL, PROTOCOL_VERSION } from "./catalogue.js";
import { encodeFrame, type Frame, FrameDecoder, FrameKind } from "./frames.js";

/** Where bytes go to. */
export interface Transport {
  send(bytes: Uint8Array): void;
  /** Lets what was sent go out, then ends it. */
  end(): void;
  /** At once. */
  destroy(): void;
}

/** Bytes of one stream that may be under way without having been taken. */
export const WINDOW_BYTES = 256 << 10;
const PIECE_BYTES = 64 << 10;
/** Streams of one request, and requests of one connection at a time. */
const MAX_STREAMS = 8;
export const MAX_REQUESTS = 256;

export type StreamListener = (bytes: Uint8Array) => void | Promise<void>;

/** One request, at either end. */
export class Exchange {
  readonly id: number;
  readonly #send: (kind: FrameKind, id: number, ...payload: Uint8Array[]) => void;
  readonly #credit = new Map<number, number>();
  readonly #granted = new Map<number, number>();
  readonly #waiting = new Set<() => void>();
  /** The last write of a stream: those that come later wait for it. */
  readonly #writes = new Map<number, Promise<void>>();
  readonly #deliveries = new Map<number, Promise<void>>();
  readonly #listeners = new Map<number, StreamListener>();
  readonly #ends = new Map<number, () => void>();
  /** What came before anybody listened. */
  readonly #early = new Map<number, { pieces: Uint8Array[]; isAtEnd: boolean }>();
  #isClosed = false;
  readonly #closeListeners: (() => void)[] = [];
  onNote: ((note: unknown) => void) | undefined;

  constructor(id: number, send: (kind: FrameKind, id: number, ...payload: Uint8Array[]) => void) {
    this.id = id;
    this.#send = send;
  }
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** The request has ended, was cancelled, or the connection has gone; called at once if it is so already. */
  onClose(listener: () => void): void {
    if (this.#isClosed) listener();
    else this.#closeListeners.push(listener);
  }
  note(value: unknown): void {
    if (!this.#isClosed) this.#send(FrameKind.note, this.id, json(value));
  }
  /** Settles when all of it is under way; what a closed exchange gets is dropped. */
  write(stream: number, data: Uint8Array): Promise<void> {
    const before = this.#writes.get(stream);
    const written = before === undefined ? this.#write(stream, data) : before.then(() => this.#write(stream, data));
    this.#writes.set(stream, written);
    void written.then(() => {
      if (this.#writes.get(stream) === written) this.#writes.delete(stream);
    });
    return written;
  }
  async #write(stream: number, data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length && !this.#isClosed; ) {
      const credit = this.#credit.get(stream) ?? WINDOW_BYTES;
      if (credit <= 0) {
        await new Promise<void>((resolve) => this.#waiting.add(resolve));
        continue;
      }
      const piece = data.subarray(at, at + Math.min(credit, PIECE_BYTES));
      this.#credit.set(stream, credit - piece.length);
      this.#send(FrameKind.data, this.id, Uint8Array.of(stream), piece);
      at += piece.length;
    }
  }
  /** Behind what is still being written. */
  end(stream: number): void {
    const end = (): void => {
      if (!this.#isClosed) this.#send(FrameKind.end, this.id, Uint8Array.of(stream));
    };
    const before = this.#writes.get(stream);
    if (before === undefined) end();
    else void before.then(end);
  }
  /** Gets a stream's bytes, a piece at a time: the next, and the end, come when the promise of the one before is settled. */
  read(stream: number, listener: StreamListener, onEnd: () => void = () => {}): void {
    this.#listeners.set(stream, listener);
    this.#ends.set(stream, onEnd);
    const early = this.#early.get(stream);
    this.#early.delete(stream);
    for (const piece of early?.pieces ?? []) this.#deliver(stream, () => this.#take(stream, piece, listener));
    if (early?.isAtEnd === true) this.#deliver(stream, onEnd);
  }
  /** In order, however long one takes. */
  #deliver(stream: number, deliver: () => void | Promise<void>): void {
    const before = this.#deliveries.get(stream);
    const delivered = before === undefined ? deliver() : before.then(deliver, deliver);
    if (delivered === undefined) return;
    this.#deliveries.set(stream, delivered);
    const forget = (): void => {
      if (this.#deliveries.get(stream) === delivered) this.#deliveries.delete(stream);
    };
    delivered.then(forget, forget);
  }
  /** Settles when the listeners are done with all that has come. */
  async delivered(): Promise<void> {
    await Promise.allSettled(this.#deliveries.values());
  }
  #take(stream: number, bytes: Uint8Array, listener: StreamListener): void | Promise<void> {
    const grant = (): void => {
      if (this.#isClosed) return;
      this.#granted.set(stream, this.#left(stream) + bytes.length);
      const payload = new Uint8Array(5);
      payload[0] = stream;
      new DataView(payload.buffer).setUint32(1, bytes.length, true);
      this.#send(FrameKind.credit, this.id, payload);
    };
    const taken = listener(bytes);
    if (taken !== undefined) return taken.then(grant, grant);
    grant();
  }
  #left(stream: number): number {
    return this.#granted.get(stream) ?? WINDOW_BYTES;
  }

  // ---- from the connection ----------------------------------------------------------------------------------------------
  /** @returns false when the peer breaks the rules */
  receive({ kind, payload }: Frame): boolean {
    if (kind === FrameKind.note) {
      const note = parse(payload);
      if (note === undefined) return false;
      try {
        this.onNote?.(note);
      } catch {
        return false;
      }
      return true;
    }
    const stream = payload[0];
    if (stream === undefined || stream >= MAX_STREAMS) return false;
    switch (kind) {
      case FrameKind.data: {
        const bytes = payload.slice(1);
        const left = this.#left(stream) - bytes.length;
        if (left < 0) return false;
        this.#granted.set(stream, left);
        const listener = this.#listeners.get(stream);
        if (listener === undefined) this.#keep(stream).pieces.push(bytes);
        else this.#deliver(stream, () => this.#take(stream, bytes, listener));
        return true;
      }
      case FrameKind.end: {
        const listener = this.#ends.get(stream);
        if (listener === undefined) this.#keep(stream).isAtEnd = true;
        else this.#deliver(stream, listener);
        return true;
      }
      case FrameKind.credit: {
        if (payload.length !== 5) return false;
        const bytes = new DataView(payload.buffer, payload.byteOffset).getUint32(1, true);
        const credit = (this.#credit.get(stream) ?? WINDOW_BYTES) + bytes;
        if (credit > WINDOW_BYTES) return false;
        this.#credit.set(stream, credit);
        this.#wake();
        return true;
      }
      default:
        return false;
    }
  }
  #keep(stream: number): { pieces: Uint8Array[]; isAtEnd: boolean } {
    let early = this.#early.get(stream);
    if (early === undefined) this.#early.set(stream, (early = { pieces: [], isAtEnd: false }));
    return early;
  }
  #wake(): void {
    for (const f of this.#waiting) f();
    this.#waiting.clear();
  }
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#wake();
    for (const f of this.#closeListeners.splice(0)) f();
  }
}

export interface ConnectionEvents {
  /** The peer has said who it is. */
  readonly onHello?: () => void;
  /** It speaks another version, or something else altogether; the connection is gone. */
  readonly onStranger?: (why: string) => void;
  /** Server: a request begins. @returns false for one that cannot be taken: the peer is cut off */
  readonly onRequest?: (exchange: Exchange, body: unknown) => boolean;
  /** Client: it ends. @returns false when what it says is not in order */
  readonly onOutcome?: (id: number, isGood: boolean, body: unknown) => boolean;
  readonly onClose?: () => void;
}

export class ControlConnection {
  readonly #transport: Transport;
  readonly #events: ConnectionEvents;
  readonly #decoder = new FrameDecoder();
  readonly #exchanges = new Map<number, Exchange>();
  #isGreeted = false;
  #isClosed = false;
  #lastId = 0;

  constructor(transport: Transport, events: ConnectionEvents) {
    this.#transport = transport;
    this.#events = events;
    this.#send(FrameKind.hello, 0, json({ protocol: PROTOCOL, version: PROTOCOL_VERSION }));
  }
  readonly #send = (kind: FrameKind, id: number, ...payload: Uint8Array[]): void => {
    if (!this.#isClosed) this.#transport.send(encodeFrame(kind, id, ...payload));
  };
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** Client: begins a request. @throws RangeError when it is too long, or there are too many */
  open(body: unknown): Exchange {
    if (this.#exchanges.size >= MAX_REQUESTS) throw new RangeError("too many requests at a time");
    const id = ++this.#lastId;
    const exchange = new Exchange(id, this.#send);
    this.#send(FrameKind.request, id, json(body));
    if (this.#isClosed) exchange.close();
    else this.#exchanges.set(id, exchange);
    return exchange;
  }
  /** Client: nobody waits for it any more. */
  cancel(exchange: Exchange): void {
    if (exchange.isClosed) return;
    this.#send(FrameKind.cancel, exchange.id);
    this.#forget(exchange);
  }
  /** Server: the end of a request. */
  finish(exchange: Exchange, isGood: boolean, body: unknown): void {
    if (exchange.isClosed) return;
    this.#send(isGood ? FrameKind.answer : FrameKind.failure, exchange.id, json(body));
    this.#forget(exchange);
  }
  #forget(exchange: Exchange): void {
    this.#exchanges.delete(exchange.id);
    exchange.close();
  }

  // ---- from the transport -----------------------------------------------------------------------------------------------
  received(data: Uint8Array): void {
    if (this.#isClosed) return;
    const isGood = this.#decoder.push(data, (frame) => {
      if (this.#isClosed) return;
      if (!(this.#isGreeted ? this.#receive(frame) : this.#greet(frame))) this.destroy();
    });
    if (isGood || this.#isClosed) return;
    if (!this.#isGreeted) this.#events.onStranger?.("what answers does not speak enlighten's control protocol");
    this.destroy();
  }
  #greet(frame: Frame): boolean {
    const stranger = (why: string): boolean => {
      this.#events.onStranger?.(why);
      return false;
    };
    let said: ReturnType<typeof hello>;
    try {
      said = hello(frame.kind === FrameKind.hello ? parse(frame.payload) : undefined, "");
    } catch {
      return stranger("what answers does not speak enlighten's control protocol");
    }
    if (said.protocol !== PROTOCOL) return stranger(`what answers speaks ${said.protocol.slice(0, 40)}`);
    if (said.version !== PROTOCOL_VERSION)
      return stranger(
        `the machine was started by another enlighten: it speaks version ${said.version} of the protocol`,
      );
    this.#isGreeted = true;
    this.#events.onHello?.();
    return true;
  }
  #receive(frame: Frame): boolean {
    const { kind, id, payload } = frame;
    const exchange = this.#exchanges.get(id);
    switch (kind) {
      case FrameKind.hello:
        return false;
      case FrameKind.request: {
        // ids go up, so that a late frame never belongs to another request
        if (this.#events.onRequest === undefined || id <= this.#lastId) return false;
        if (this.#exchanges.size >= MAX_REQUESTS) return false;
        const body = parse(payload);
        if (body === undefined) return false;
        this.#lastId = id;
        const begun = new Exchange(id, this.#send);
        this.#exchanges.set(id, begun);
        return this.#events.onRequest(begun, body);
      }
      case FrameKind.answer:
      case FrameKind.failure: {
        if (this.#events.onOutcome === undefined || id > this.#lastId) return false;
        // cancelled meanwhile
        if (exchange === undefined) return true;
        const body = parse(payload);
        if (body === undefined) return false;
        const isGood = this.#events.onOutcome(id, kind === FrameKind.answer, body);
        this.#forget(exchange);
        return isGood;
      }
      case FrameKind.cancel:
        if (this.#events.onRequest === undefined || id > this.#lastId) return false;
        if (exchange !== undefined) this.#forget(exchange);
        return true;
      default:
        // one that has ended at this end, and not yet at the other
        if (exchange === undefined) return id <= this.#lastId;
        return exchange.receive(frame);
    }
  }
  /** What was sent goes out, then it is closed. */
  end(): void {
    if (this.#isClosed) return;
    this.#transport.end();
  }
  /** At once. */
  destroy(): void {
    this.#transport.destroy();
    this.closed();
  }
  /** The transport is gone. */
  closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const exchange of [...this.#exchanges.values()]) this.#forget(exchange);
    this.#events.onClose?.();
  }
}

export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
/** Undefined where it is no JSON. */
function parse(payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload)) as unknown;
  } catch {
    return undefined;
  }
}
