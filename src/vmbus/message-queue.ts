/** Control messages on their way to the guest: the SynIC takes a few at a time, the rest waits here in order. */
import type { GuestMemory } from "../machine/guest-memory.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import type { SynicPort } from "./device.js";
import { CHANNEL_MESSAGE, messageType } from "./protocol.js";

export interface QueuedMessage {
  readonly vp: number;
  readonly sint: number;
  readonly bytes: Uint8Array;
}

export class MessageQueue {
  readonly #memory: GuestMemory;
  readonly #synic: SynicPort;
  readonly #trace: Trace;
  #queued: QueuedMessage[] = [];
  /** Of the first that has not gone; what is before it is thrown away from time to time. */
  #first = 0;

  constructor(memory: GuestMemory, synic: SynicPort, trace: Trace) {
    this.#memory = memory;
    this.#synic = synic;
    this.#trace = trace;
  }
  get length(): number {
    return this.#queued.length - this.#first;
  }
  post(vp: number, sint: number, bytes: Uint8Array): void {
    this.#queued.push({ vp, sint, bytes });
    this.retry();
  }
  /** Hands over as many as the SynIC takes. */
  retry(): void {
    if (this.length === 0) return;
    this.#memory.settle();
    while (this.#first < this.#queued.length) {
      const { vp, sint, bytes } = this.#queued[this.#first]!;
      if (!this.#synic.post(vp, sint, CHANNEL_MESSAGE, bytes, bytes.length)) break;
      this.#trace.record(TraceKind.vmbusOut, messageType(bytes), vp, 0, bytes);
      this.#first++;
    }
    if (this.#first < this.#queued.length / 2) return;
    this.#queued = this.#queued.slice(this.#first);
    this.#first = 0;
  }
  clear(): void {
    this.#queued = [];
    this.#first = 0;
  }
  save(): QueuedMessage[] {
    return this.#queued.slice(this.#first).map(({ vp, sint, bytes }) => ({ vp, sint, bytes: bytes.slice() }));
  }
  restore(messages: readonly QueuedMessage[]): void {
    this.#queued = messages.map(({ vp, sint, bytes }) => ({ vp, sint, bytes: bytes.slice() }));
    this.#first = 0;
  }
}
