/**
 * The device side's end of the shared areas: how the host side of VMBus reaches the processors (messages, event flags), and how
 * it gets what they left (posted messages, signals). It may run on another thread than they; nothing here waits but `settle`.
 */
import type { WriteWatcher } from "../machine/guest-memory.js";
import {
  Attention,
  type HvAreas,
  MAX_HOST_WRITES,
  PartitionArea,
  POSTED_SLOTS,
  PostedArea,
  QUEUE_SLOTS,
  queueNext,
  queueUsed,
  SLOT_BYTES,
  SLOT_PAYLOAD,
  SynicArea,
  VMBUS_SINT,
} from "./shared-areas.js";

export type PostedHandler = (payload: Uint8Array, lengthBytes: number, connectionId: number, type: number) => void;

export class DeviceDoor {
  readonly #vps: readonly HvAreas[];
  readonly #partition: Int32Array;
  readonly #wake: (vp: number) => void;
  readonly #message = new Uint8Array(SLOT_BYTES - SLOT_PAYLOAD);

  /** @param wake makes a processor look up: its pending word and a notify */
  constructor(vps: readonly HvAreas[], wake: (vp: number) => void) {
    this.#vps = vps;
    this.#partition = vps[0]!.partition;
    this.#wake = wake;
  }
  get processors(): number {
    return this.#vps.length;
  }

  /** @returns false when the queue is full; the doorbell rings when there is room again */
  post(vp: number, sint: number, type: number, payload: Uint8Array, lengthBytes: number): boolean {
    const { synic, queueBytes } = this.#vps[vp]!;
    const tail = synic[SynicArea.queueTail >> 2]!;
    if (this.#isFull(synic, tail)) {
      Atomics.store(synic, SynicArea.wantsRoom >> 2, 1);
      // it may have been emptied before it could see the wish
      if (this.#isFull(synic, tail)) return false;
      Atomics.store(synic, SynicArea.wantsRoom >> 2, 0);
    }
    const slot = tail % QUEUE_SLOTS;
    const at = (SynicArea.queue + slot * SLOT_BYTES) >> 2;
    synic[at] = sint;
    synic[at + 1] = type | 0;
    synic[at + 2] = lengthBytes;
    queueBytes.set(
      lengthBytes === payload.length ? payload : payload.subarray(0, lengthBytes),
      slot * SLOT_BYTES + SLOT_PAYLOAD,
    );
    Atomics.store(synic, SynicArea.queueTail >> 2, queueNext(tail, QUEUE_SLOTS));
    this.#ask(vp, Attention.messages);
    return true;
  }
  #isFull(synic: Int32Array, tail: number): boolean {
    return queueUsed(Atomics.load(synic, SynicArea.queueHead >> 2), tail, QUEUE_SLOTS) >= QUEUE_SLOTS;
  }
  signal(vp: number, sint: number, flag: number): void {
    if (sint !== VMBUS_SINT) return;
    Atomics.or(this.#vps[vp]!.synic, (SynicArea.events >> 2) + (flag >> 5), 1 << (flag & 31));
    this.#ask(vp, Attention.events);
  }
  #ask(vp: number, what: number): void {
    Atomics.or(this.#vps[vp]!.synic, SynicArea.attention >> 2, what);
    this.#wake(vp);
  }
  setConnection(relid: number, connected: boolean): void {
    const at = (PartitionArea.connections >> 2) + (relid >> 5);
    const bit = 1 << (relid & 31);
    if (connected) Atomics.or(this.#partition, at, bit);
    else {
      Atomics.and(this.#partition, at, ~bit);
      Atomics.and(this.#partition, (PartitionArea.signals >> 2) + (relid >> 5), ~bit);
    }
  }

  /** Hands over what the guest posted, in order, while `accepts` says so. The payload is valid during the call. */
  takeMessages(accepts: () => boolean, handle: PostedHandler): void {
    for (const { posted, postedBytes } of this.#vps) {
      let head = posted[PostedArea.head >> 2]!;
      while (head !== Atomics.load(posted, PostedArea.tail >> 2) && accepts()) {
        const slot = head % POSTED_SLOTS;
        const at = (PostedArea.slots + slot * SLOT_BYTES) >> 2;
        const from = slot * SLOT_BYTES + SLOT_PAYLOAD;
        const connection = posted[at]!;
        const type = posted[at + 1]!;
        const length = posted[at + 2]!;
        this.#message.set(postedBytes.subarray(from, from + this.#message.length));
        head = queueNext(head, POSTED_SLOTS);
        Atomics.store(posted, PostedArea.head >> 2, head);
        handle(this.#message, length, connection, type);
      }
    }
  }
  /** Hands over the relids that were signalled since the last call. */
  takeSignals(handle: (relid: number) => void): void {
    for (let w = 0; w < 64; w++) {
      const at = (PartitionArea.signals >> 2) + w;
      if (Atomics.load(this.#partition, at) === 0) continue;
      let bits = Atomics.exchange(this.#partition, at, 0);
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits);
        bits &= ~(1 << bit);
        handle(w * 32 + bit);
      }
    }
  }
  /** The word that the processors count up, and its index: what the device side sleeps on. */
  get doorbell(): { readonly words: Int32Array; readonly index: number } {
    return { words: this.#partition, index: PartitionArea.doorbell >> 2 };
  }

  /**
   * Tells the processor about writes to pages that it has decoded code from, and waits until it has thrown that code away. Only
   * such writes wait: a guest seldom reads a file over code that runs.
   * @param lineMasks two words for each page of guest RAM: which of its lines have been decoded
   */
  codeWatcher(lineMasks: Int32Array): WriteWatcher {
    const p = this.#partition;
    const pages = p.subarray(PartitionArea.writes >> 2, (PartitionArea.writes >> 2) + MAX_HOST_WRITES);
    let count = 0;
    const settle = (): void => {
      if (count === 0) return;
      p[PartitionArea.writesCount >> 2] = count;
      count = 0;
      const asked = Atomics.add(p, PartitionArea.writesAsked >> 2, 1) + 1;
      this.#ask(0, Attention.hostWrites);
      for (;;) {
        const done = Atomics.load(p, PartitionArea.writesDone >> 2);
        if (done === (asked | 0) || Atomics.load(p, PartitionArea.stopped >> 2) !== 0) return;
        Atomics.wait(p, PartitionArea.writesDone >> 2, done, 100);
      }
    };
    return {
      settle,
      written: (gpa, lengthBytes) => {
        const last = Math.floor((gpa + lengthBytes - 1) / 4096);
        for (let page = Math.floor(gpa / 4096); page <= last; page++) {
          if (lineMasks[page * 2] === 0 && lineMasks[page * 2 + 1] === 0) continue;
          if (count > 0 && pages[count - 1] === page) continue;
          if (count === MAX_HOST_WRITES) settle();
          pages[count++] = page;
        }
        return count > 0;
      },
    };
  }
}
