/**
 * What the hypervisor keeps in the shared memory, so that any thread can reach it: per virtual processor the SynIC with its
 * inbox (Vp.synic) and the messages that the guest posted (Vp.posted); per partition the rest (Vp.partition of the first block).
 * All registers live here too, so that a checkpoint is a copy of these areas. Offsets in bytes from the area's start.
 */

/** Vp.synic, 4 KiB. Registers belong to the owning processor's thread; what is atomic says so. */
export const SynicArea = {
  /** SCONTROL, SIEFP, SIMP, VP_ASSIST_PAGE: u64 each. */
  scontrol: 0x00,
  siefp: 0x08,
  simp: 0x10,
  vpAssist: 0x18,
  /** SINT0..15: u64 each. */
  sint: 0x20,
  /** Four timers: CONFIG u64, COUNT u64, expiration time of a message that waits u64, next expiration of a periodic timer u64. */
  stimer: 0xa0,
  /** Atomic: bits of Attention. */
  attention: 0x120,
  /** Atomic: counters of slots taken and slots filled (`queueNext`). */
  queueHead: 0x124,
  queueTail: 0x128,
  /** Atomic: 1 = the device side waits for room in the queue. */
  wantsRoom: 0x12c,
  /** Bit n: timer n has expired in message mode and its message waits for the slot. */
  timersWaiting: 0x130,
  /** Atomic: 2048 event flags to be set in the guest's page, for VMBus's SINT. */
  events: 0x200,
  /** Messages for the guest: SINT, type, length (u32 each), 4 bytes free, payload. */
  queue: 0x400,
} as const;
export const STIMER_BYTES = 32;
export const STIMERS = 4;
export const SINTS = 16;
export const QUEUE_SLOTS = 12;
export const Attention = { events: 1, messages: 2, hostWrites: 4 } as const;

/** Slots of both message queues: 16 bytes of header, 240 of payload. */
export const SLOT_BYTES = 256;
export const SLOT_PAYLOAD = 16;
/** A queue's counters go round at twice its slots: so full and empty differ, and a counter's slot is its remainder by the slots. */
export const queueNext = (counter: number, slots: number): number => (counter + 1) % (2 * slots);
export const queueUsed = (head: number, tail: number, slots: number): number => (tail - head + 2 * slots) % (2 * slots);
/** Largest payload of a message (TLFS, "HV_MESSAGE"). */
export const MAX_PAYLOAD = 240;

/** Vp.posted, 16 KiB: the guest's messages on their way to the device side. */
export const PostedArea = {
  /** Atomic: counters of slots taken and filled (`queueNext`). */
  head: 0x00,
  tail: 0x04,
  /** Connection id, type, length (u32 each), 4 bytes free, payload. */
  slots: 0x100,
} as const;
export const POSTED_SLOTS = 62;

/** Vp.partition, 4 KiB. */
export const PartitionArea = {
  guestOsId: 0x00,
  hypercall: 0x08,
  referenceTsc: 0x10,
  tscInvariant: 0x18,
  /** P0..P4 and CTL: u64 each. */
  crash: 0x20,
  /** Atomic: counts up whenever the device side should look; it sleeps on it. */
  doorbell: 0x60,
  /** Host writes to pages with decoded code: asked by the device side, done by the processor. */
  writesAsked: 0x64,
  writesDone: 0x68,
  writesCount: 0x6c,
  /** Atomic: 1 = the processor will not run any more; nobody waits for it. */
  stopped: 0x70,
  /** Atomic, by relid: event connections that exist, and those that have been signalled. */
  connections: 0x100,
  signals: 0x200,
  /** Page numbers of the host writes: u32 each. */
  writes: 0x400,
} as const;
export const MAX_HOST_WRITES = 512;
export const AREA_BYTES = 4096;
export const POSTED_BYTES = 0x4000;

/** SINT of VMBus (VMBus, "Carriers"). */
export const VMBUS_SINT = 2;
/** SignalEvent's connection id of a channel: this plus its relid. */
export const EVENT_CONNECTION_BASE = 0x10000;
/** PostMessage's connection ids of VMBus: before version 5.0, and from it. */
export const MESSAGE_CONNECTIONS: readonly number[] = [1, 4];

/** One processor's areas as words. */
export interface HvAreas {
  readonly synic: Int32Array;
  readonly posted: Int32Array;
  readonly partition: Int32Array;
  /** The same as bytes. */
  readonly queueBytes: Uint8Array;
  readonly postedBytes: Uint8Array;
}
/** @param offsets of the areas in the memory, in bytes */
export function hvAreas(
  memory: ArrayBufferLike,
  offsets: { readonly synic: number; readonly posted: number; readonly partition: number },
): HvAreas {
  return {
    synic: new Int32Array(memory, offsets.synic, AREA_BYTES / 4),
    posted: new Int32Array(memory, offsets.posted, POSTED_BYTES / 4),
    partition: new Int32Array(memory, offsets.partition, AREA_BYTES / 4),
    queueBytes: new Uint8Array(memory, offsets.synic + SynicArea.queue, QUEUE_SLOTS * SLOT_BYTES),
    postedBytes: new Uint8Array(memory, offsets.posted + PostedArea.slots, POSTED_SLOTS * SLOT_BYTES),
  };
}
