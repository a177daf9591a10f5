/** A stream between the API's thread and a program in the guest, over a Hyper-V socket. */
import type { ToDevices } from "./device-messages.js";
import { VmError } from "./vm-error.js";

/** Largest piece of one message. */
const PIECE = 64 << 10;
/** Pieces on their way: the writer waits beyond it. */
const WINDOW = 8;

/** A connection by Hyper-V sockets (AF_VSOCK) to a program in the guest. */
export class GuestSocket implements AsyncIterable<Uint8Array>, AsyncDisposable {
  /** The other end's port. */
  readonly port: number;
  readonly #id: number;
  readonly #send: (message: ToDevices, transfer?: readonly ArrayBuffer[]) => void;
  readonly #forget: () => void;
  readonly #received: Uint8Array[] = [];
  #guestEnded = false;
  #isOpen = false;
  #isClosed = false;
  #failure: VmError | undefined;
  #inFlight = 0;
  #wakeReader: (() => void) | undefined;
  readonly #writers: (() => void)[] = [];
  readonly #closeListeners: (() => void)[] = [];
  /** The guest has taken it. */
  onOpen: (() => void) | undefined;
  /** It was closed before it was open. */
  onRefused: (() => void) | undefined;
  /** Gets data instead of a reader. What it gets counts as taken when its promise is settled. */
  onData: ((data: Uint8Array) => void | Promise<void>) | undefined;

  /** @internal */
  constructor(
    id: number,
    port: number,
    send: (message: ToDevices, transfer?: readonly ArrayBuffer[]) => void,
    forget: () => void,
  ) {
    this.#id = id;
    this.port = port;
    this.#send = send;
    this.#forget = forget;
  }
  /** Both ends have closed, or the connection broke. */
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** The next piece; undefined at the end. @throws VmError when the connection broke */
  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      const piece = this.#received.shift();
      if (piece !== undefined) {
        this.#take(piece.length);
        return piece;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#guestEnded || this.#isClosed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
  }
  #take(bytes: number): void {
    if (!this.#isClosed) this.#send({ type: "socket-taken", socket: this.#id, bytes });
  }
  /** Everything up to the end. */
  async readAll(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of this) {
      pieces.push(piece);
      length += piece.length;
    }
    const all = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
  /** Piece by piece to the end. @throws VmError when the connection broke */
  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (let piece = await this.read(); piece !== undefined; piece = await this.read()) yield piece;
  }
  /** Settles when the bytes are on their way and there is room for more. @throws VmError when the connection is closed */
  async write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let at = 0; at < bytes.length; at += PIECE) {
      while (this.#inFlight >= WINDOW && !this.#isClosed)
        await new Promise<void>((resolve) => void this.#writers.push(resolve));
      if (this.#isClosed)
        throw this.#failure ?? new VmError("closed", "the guest has closed the connection", "connect again");
      this.#inFlight++;
      // a copy of its own: a Buffer's slice is none
      const piece = new Uint8Array(bytes.subarray(at, at + PIECE));
      this.#send({ type: "socket-data", socket: this.#id, bytes: piece }, [piece.buffer]);
    }
  }
  /** No more data from here; reading goes on. */
  end(): void {
    if (!this.#isClosed) this.#send({ type: "socket-end", socket: this.#id });
  }
  /** Ends it at once. */
  destroy(): void {
    if (!this.#isClosed) this.#send({ type: "socket-destroy", socket: this.#id });
  }
  /** Waits until it is closed in both directions. */
  async finished(): Promise<void> {
    if (!this.#isClosed) await new Promise<void>((resolve) => void this.#closeListeners.push(resolve));
    if (this.#failure !== undefined) throw this.#failure;
  }
  /** Breaks it, if it is open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.destroy();
  }

  // ---- from the device side ---------------------------------------------------------------------------------------------
  /** @internal */
  opened(): void {
    this.#isOpen = true;
    this.onOpen?.();
  }
  /** @internal */
  received(bytes: Uint8Array): void {
    if (this.onData === undefined) {
      this.#received.push(bytes);
      this.#wake();
      return;
    }
    const taken = this.onData(bytes);
    if (taken === undefined) this.#take(bytes.length);
    else void taken.finally(() => this.#take(bytes.length));
  }
  /** @internal */
  ended(): void {
    this.#guestEnded = true;
    this.#wake();
  }
  /** @internal */
  drained(messages: number): void {
    this.#inFlight -= messages;
    for (const f of this.#writers.splice(0)) f();
  }
  /** @internal */
  closed(failure: "refused" | "reset" | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (failure !== undefined && !this.#guestEnded)
      this.#failure = new VmError(failure, "the connection to the guest broke", "is the program in the guest alive?");
    this.#forget();
    if (!this.#isOpen) this.onRefused?.();
    for (const f of this.#writers.splice(0)) f();
    for (const f of this.#closeListeners.splice(0)) f();
    this.#wake();
  }
  #wake(): void {
    const f = this.#wakeReader;
    this.#wakeReader = undefined;
    f?.();
  }
}
