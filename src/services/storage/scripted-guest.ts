/** A guest for tests: a driver that builds VSTOR packets as Linux does. */
import { GuestMemory, UNWATCHED } from "../../machine/guest-memory.js";
import { invariant } from "../../machine/guest-violation.js";
import { PacketType } from "../../vmbus/device.js";
import { type Piece, ScriptedChannel } from "../../vmbus/scripted-channel.js";
import type { StorageController } from "./controller.js";

export interface Completion {
  readonly ntStatus: number;
  readonly srb: number;
  readonly scsi: number;
  readonly transferred: number;
  /** Key, code and qualifier as one number; 0 without sense data. */
  readonly sense: number;
  readonly payload: Uint8Array;
}

export interface Command {
  readonly lun?: number;
  readonly path?: number;
  readonly target?: number;
  readonly cdb: readonly number[];
  /** Bytes that the command takes from the device, or data that it gives. */
  readonly in?: number;
  readonly out?: Uint8Array;
  /** Where the buffer is; one piece at 0x10000 unless given. */
  readonly pieces?: readonly Piece[];
}

export class ScriptedGuest {
  readonly memory: GuestMemory;
  readonly channel: ScriptedChannel;
  readonly #completions = new Map<number, Completion>();
  #nextId = 1;

  /** Opens the controller's primary channel. */
  constructor(controller: StorageController, memory: GuestMemory) {
    this.memory = memory;
    this.channel = openChannel(controller);
  }
  /** The start-up of 1.4 of the protocol, all of it. */
  start(version = 0x0602): this {
    for (const [operation, field] of [
      [7, 0],
      [9, version],
      [10, 0],
      [8, 0],
    ] as const)
      invariant(this.control(operation, field).ntStatus === 0, `start-up operation ${operation} failed`);
    return this;
  }
  /** A packet that is not an SRB, with a u16 in its union. */
  control(operation: number, field = 0): Completion {
    const payload = new Uint8Array(64);
    payload[0] = operation;
    payload[4] = 1;
    payload[12] = field;
    payload[13] = field >>> 8;
    const id = this.#nextId++;
    this.channel.put({ low: id, payload });
    return this.completionOf(id)!;
  }
  /** Puts an SRB into the ring. @returns its id */
  submit(command: Command): number {
    const length = command.in ?? command.out?.length ?? 0;
    const pieces = command.pieces ?? (length > 0 ? [{ gpa: 0x10000, length }] : undefined);
    if (command.out !== undefined) scatter(this.memory, pieces ?? [], command.out);
    const id = this.#nextId++;
    this.channel.put({
      low: id,
      payload: srb(command, length, command.in !== undefined ? 1 : command.out !== undefined ? 0 : 2),
      ...(pieces === undefined ? {} : { ranges: pieces }),
    });
    return id;
  }
  /** The completion of a packet, once. */
  completionOf(id: number): Completion | undefined {
    for (const packet of this.channel.take()) {
      if (packet.type !== PacketType.completion) continue;
      invariant(!this.#completions.has(packet.low) && packet.high === 0, `id ${packet.low} completed twice`);
      this.#completions.set(packet.low, decode(packet.payload));
    }
    const completion = this.#completions.get(id);
    this.#completions.delete(id);
    return completion;
  }
  /** Does a command that ends at once. */
  run(command: Command): Completion & { readonly data: Uint8Array } {
    if (command.in !== undefined && command.pieces === undefined)
      this.memory.ram.fill(0xa5, 0x10000, 0x10000 + command.in);
    const completion = this.completionOf(this.submit(command));
    invariant(completion !== undefined, "the command has not ended");
    return { ...completion, data: this.memory.ram.slice(0x10000, 0x10000 + completion.transferred) };
  }
}

export function openChannel(controller: StorageController, subIndex = 0): ScriptedChannel {
  const channel = new ScriptedChannel(subIndex);
  channel.handler = controller.open(channel);
  invariant(channel.handler !== undefined, "the controller refuses the channel");
  return channel;
}

/** Guest RAM that nobody runs. */
export function testMemory(bytes = 1 << 20): GuestMemory {
  return new GuestMemory(new Uint8Array(new SharedArrayBuffer(bytes)), UNWATCHED);
}

/** An EXECUTE_SRB packet as Linux fills it in. */
export function srb(command: Command, length: number, direction: number): Uint8Array {
  const payload = new Uint8Array(64);
  const view = new DataView(payload.buffer);
  payload[0] = 3;
  payload[4] = 1;
  view.setUint16(12, 0x34, true);
  payload[17] = command.path ?? 0;
  payload[18] = command.target ?? 0;
  payload[19] = command.lun ?? 0;
  payload[20] = command.cdb.length;
  payload[21] = 0x14;
  payload[22] = direction;
  view.setUint32(24, length, true);
  payload.set(command.cdb.slice(0, 16), 28);
  payload[50] = 0xff;
  payload[51] = 0x20;
  view.setUint32(52, 0x10a, true);
  view.setUint32(56, 60, true);
  return payload;
}

export function decode(payload: Uint8Array): Completion {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const sense = payload.subarray(28);
  return {
    ntStatus: view.getUint32(8, true),
    srb: payload[14]!,
    scsi: payload[15]!,
    transferred: view.getUint32(24, true),
    sense: (payload[14]! & 0x80) !== 0 ? ((sense[2]! & 0xf) << 16) | (sense[12]! << 8) | sense[13]! : 0,
    payload,
  };
}

function scatter(memory: GuestMemory, pieces: readonly Piece[], data: Uint8Array): void {
  let at = 0;
  for (const { gpa, length } of pieces) {
    const n = Math.min(length, data.length - at);
    memory.write(gpa, data, at, n);
    at += n;
  }
}

/** Big-endian bytes of a number, for CDBs. */
export function be(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => Math.floor(value / 256 ** (bytes - 1 - i)) % 256);
}
export const read10 = (lba: number, blocks: number): number[] => [0x28, 0, ...be(lba, 4), 0, ...be(blocks, 2), 0];
export const write10 = (lba: number, blocks: number, flags = 0): number[] => [
  0x2a,
  flags,
  ...be(lba, 4),
  0,
  ...be(blocks, 2),
  0,
];
export const read16 = (lba: number, blocks: number): number[] => [0x88, 0, ...be(lba, 8), ...be(blocks, 4), 0, 0];
export const write16 = (lba: number, blocks: number, flags = 0): number[] => [
  0x8a,
  flags,
  ...be(lba, 8),
  ...be(blocks, 4),
  0,
  0,
];
export const writeSame16 = (lba: number, blocks: number, flags = 0): number[] => [
  0x93,
  flags,
  ...be(lba, 8),
  ...be(blocks, 4),
  0,
  0,
];
export const unmap = (length: number): number[] => [0x42, 0, 0, 0, 0, 0, 0, ...be(length, 2), 0];
export const unmapList = (...ranges: readonly (readonly [lba: number, blocks: number])[]): Uint8Array =>
  Uint8Array.from([
    ...be(6 + ranges.length * 16, 2),
    ...be(ranges.length * 16, 2),
    ...[0, 0, 0, 0],
    ...ranges.flatMap(([lba, blocks]) => [...be(lba, 8), ...be(blocks, 4), 0, 0, 0, 0]),
  ]);

/** "10 00, 00": for expected bytes. */
export function hex(text: string): Uint8Array {
  return Uint8Array.from(
    text.split(/[\s,]+/).filter((t) => t !== ""),
    (t) => Number.parseInt(t, 16),
  );
}

type Ending = Pick<Completion, "ntStatus" | "srb" | "scsi" | "sense" | "transferred">;

/** Of a completion: success in every field. */
export function assertGood(c: Ending): void {
  invariant(c.ntStatus === 0 && c.srb === 1 && c.scsi === 0 && c.sense === 0, `expected success: ${shown(c)}`);
}
/** Of a completion: CHECK CONDITION with this sense, key << 16 | code << 8 | qualifier, and nothing transferred. */
export function assertCheck(c: Ending, sense: number): void {
  invariant(
    c.ntStatus === 0 && c.srb === 0x84 && c.scsi === 2 && c.sense === sense && c.transferred === 0,
    `expected sense ${sense.toString(16)}: ${shown(c)}`,
  );
}
function shown(c: Ending): string {
  const { ntStatus, srb, scsi, sense, transferred } = c;
  return `status ${ntStatus.toString(16)}, SRB ${srb.toString(16)}, SCSI ${scsi}, sense ${sense.toString(16)}, ${transferred} bytes`;
}
