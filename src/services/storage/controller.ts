/**
 * A synthetic SCSI controller: the host side of Linux hv_storvsc and FreeBSD storvsc. It keeps VSTOR's start-up states, the map of
 * LUNs (path 0, target 0) and what must be told to the guest when that map changes.
 */
import type { Disk } from "../../disk/disk.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import { invariant } from "../../machine/guest-violation.js";
import { NO_TRACE, type Trace, TraceKind } from "../../trace/trace.js";
import { readU16, readU32, writeU16, writeU32 } from "../../vmbus/byte-order.js";
import type {
  Channel,
  ChannelHandler,
  InboundPacket,
  Offer,
  OfferParameters,
  VmbusDevice,
} from "../../vmbus/device.js";
import { type ChannelOwner, type SavedCompletion, StorageChannel } from "./channel.js";
import { IDENTITY_BYTES, inquiry } from "./inquiry.js";
import {
  At,
  CDB_BYTES,
  LUNS,
  MAX_TRANSFER_BYTES,
  MULTI_CHANNEL,
  NtStatus,
  Operation,
  PACKET_BYTES,
  SCSI_CLASS,
  SrbStatus,
  VERSIONS,
} from "./protocol.js";
import type { Slot, StorageRequest } from "./request.js";
import { be32, cdbLengthOf, Opcode, putBe32, Sense } from "./scsi.js";
import { ScsiDisk } from "./scsi-disk.js";
import { ScsiDvd } from "./scsi-dvd.js";
import type { ScsiTarget, StorageProblem, StorageStatistics, TargetHost, TargetState } from "./target.js";

/** How far the guest has come in its start-up. */
type Phase = "closed" | "opened" | "begun" | "versioned" | "propertied" | "ready";

export interface StorageControllerOptions {
  /** Text in lower case; the same at every start of the machine. */
  readonly instanceId: string;
  readonly memory: GuestMemory;
  readonly trace?: Trace;
  /** Sub-channels that a guest may ask for; 0 unless given. With any, `attach` must have been called. */
  readonly subChannels?: number;
  /** A guest was told of an error of the host's. Once for each LUN and kind. */
  readonly onProblem?: (problem: StorageProblem) => void;
}

interface StorageState {
  readonly version: 1;
  readonly phase: Phase;
  readonly protocolVersion: number;
  readonly grantedSubChannels: number;
  /** ENUMERATE_BUS waits for room. */
  readonly enumerate: boolean;
  readonly channels: readonly { readonly subIndex: number; readonly completions: readonly SavedCompletion[] }[];
  readonly luns: readonly { readonly lun: number; readonly state: TargetState }[];
}

const ENUMERATE_BUS = new Uint8Array(PACKET_BYTES);
ENUMERATE_BUS[At.operation] = Operation.enumerateBus;

export class StorageController implements VmbusDevice {
  readonly offer: OfferParameters;
  readonly #memory: GuestMemory;
  readonly #trace: Trace;
  readonly #subChannels: number;
  readonly #onProblem: ((problem: StorageProblem) => void) | undefined;
  readonly #slots: (Slot | undefined)[] = new Array(LUNS).fill(undefined);
  readonly #channels: StorageChannel[] = [];
  readonly #owner: ChannelOwner;
  #attached: Offer | undefined;
  #phase: Phase = "closed";
  #version = 0;
  #granted = 0;
  #inFlight = 0;
  #quiesced: (() => void)[] = [];

  constructor(options: StorageControllerOptions) {
    this.#memory = options.memory;
    this.#trace = options.trace ?? NO_TRACE;
    this.#subChannels = options.subChannels ?? 0;
    this.#onProblem = options.onProblem;
    this.#owner = {
      memory: options.memory,
      execute: (channel, request, packet) => this.#execute(channel, request, packet),
      ended: (request) => this.#ended(request),
      closed: (channel) => this.#closed(channel),
      violation: (relid, text) => this.#violation(relid, text),
    };
    this.offer = {
      name: "storage",
      classId: SCSI_CLASS,
      instanceId: options.instanceId,
      flags: 0,
      mmioMegabytes: 0,
      userDefined: new Uint8Array(0),
    };
  }

  /** What the bus gave for the offer: sub-channels are offered through it. */
  attach(offer: Offer): void {
    this.#attached = offer;
  }
  /**
   * Adds a disk; the guest is told if it runs.
   * @param identity 12 bytes that name the disk, the same at every start: serial number and WWN come from them
   * @throws RangeError when the LUN is not 0 to 63 or not free, or the identity is not 12 bytes
   */
  addDisk(lun: number, disk: Disk, identity: Uint8Array): void {
    this.#add(lun, identity, (host) => new ScsiDisk(disk, identity.slice(), host));
  }
  /** Adds a DVD drive, empty or with a disc of blocks of 2,048 bytes. @returns the drive, to change its disc */
  addDvd(lun: number, identity: Uint8Array, disc?: Disk): ScsiDvd {
    return this.#add(lun, identity, (host) => new ScsiDvd(disc, identity.slice(), host));
  }
  /**
   * Takes a disk or drive away; the guest is told if it runs. Whatever is under way is still completed.
   * @param released called when nothing of it is in use any more: its disk may be closed
   */
  remove(lun: number, released?: () => void): void {
    const slot = this.#slots[lun];
    if (slot === undefined) throw new RangeError(`nothing to remove at LUN ${lun}`);
    this.#slots[lun] = undefined;
    slot.target.detach();
    if (slot.inFlight === 0) released?.();
    else slot.released = released;
    this.#enumerate();
  }
  /** Counters of a LUN; undefined where there is nothing. */
  statistics(lun: number): Readonly<StorageStatistics> | undefined {
    return this.#slots[lun]?.target.statistics;
  }
  get negotiated(): string | undefined {
    return this.#version === 0 ? undefined : `${this.#version >> 8}.${this.#version & 0xff}`;
  }
  /** The version that was agreed on, major << 8 | minor; 0 when there is none. */
  get protocolVersion(): number {
    return this.#version;
  }
  /** Whether the guest has finished its start-up. */
  get isReady(): boolean {
    return this.#phase === "ready";
  }
  /** Whether a request waits for its disk. */
  get isBusy(): boolean {
    return this.#inFlight > 0;
  }
  /** Calls back when no request is under way: at once, or later. The guest must be kept from sending more. */
  quiesce(done: () => void): void {
    if (this.#inFlight === 0) done();
    else this.#quiesced.push(done);
  }

  open(channel: Channel): ChannelHandler | undefined {
    if (this.#channels.some((c) => c.subIndex === channel.subIndex)) return undefined;
    if (channel.subIndex === 0) this.#phase = "opened";
    else if (this.#phase !== "ready" || channel.subIndex > this.#granted) return undefined;
    return this.#opened(channel);
  }
  save(): StorageState {
    invariant(this.#inFlight === 0, "storage is saved while requests are under way");
    return {
      version: 1,
      phase: this.#phase,
      protocolVersion: this.#version,
      grantedSubChannels: this.#granted,
      enumerate: this.#channels.some((c) => c.isNotifying),
      channels: this.#channels.map((c) => ({ subIndex: c.subIndex, completions: c.saveCompletions() })),
      luns: this.#slots.flatMap((slot, lun) => (slot === undefined ? [] : [{ lun, state: slot.target.save() }])),
    };
  }
  /** The disks are added before. */
  restore(saved: unknown, channels: readonly Channel[]): readonly ChannelHandler[] {
    const state = saved as StorageState;
    invariant(state.version === 1, `storage state of version ${state.version}`);
    this.#phase = state.phase;
    this.#version = state.protocolVersion;
    this.#granted = state.grantedSubChannels;
    for (const { lun, state: target } of state.luns) this.#slots[lun]?.target.restore(target);
    return channels.map((channel) => {
      const handler = this.#opened(channel);
      if (channel.subIndex === 0 && state.enumerate) handler.notify(ENUMERATE_BUS);
      handler.restoreCompletions(state.channels.find((c) => c.subIndex === channel.subIndex)?.completions ?? []);
      return handler;
    });
  }

  #execute(channel: StorageChannel, request: StorageRequest, packet: InboundPacket): void {
    this.#inFlight++;
    const operation = packet.payloadLength < At.flags ? 0 : readU32(packet.payload, At.operation);
    if (operation === Operation.executeSrb) this.#executeSrb(channel, request, packet);
    else this.#control(channel, request, operation, packet);
  }
  #ended(request: StorageRequest): void {
    this.#inFlight--;
    const slot = request.slot;
    if (slot !== undefined && --slot.inFlight === 0 && slot.released !== undefined) {
      const released = slot.released;
      slot.released = undefined;
      released();
    }
    if (this.#inFlight > 0 || this.#quiesced.length === 0) return;
    const quiesced = this.#quiesced;
    this.#quiesced = [];
    for (const done of quiesced) done();
  }
  #closed(channel: StorageChannel): void {
    this.#channels.splice(this.#channels.indexOf(channel), 1);
    if (channel.subIndex !== 0) return;
    this.#phase = "closed";
    this.#version = 0;
    this.#granted = 0;
  }
  #violation(relid: number, text: string): void {
    this.#trace.text(TraceKind.violation, relid, text);
  }

  #opened(channel: Channel): StorageChannel {
    const handler = new StorageChannel(channel, this.#owner);
    this.#channels.push(handler);
    return handler;
  }
  #add<T extends ScsiTarget>(lun: number, identity: Uint8Array, make: (host: TargetHost) => T): T {
    if (!Number.isInteger(lun) || lun < 0 || lun >= LUNS)
      throw new RangeError(`LUN ${lun}: a controller has LUNs 0 to ${LUNS - 1}`);
    if (this.#slots[lun] !== undefined) throw new RangeError(`LUN ${lun} is taken`);
    if (identity.length !== IDENTITY_BYTES)
      throw new RangeError(`an identity has ${IDENTITY_BYTES} bytes, not ${identity.length}`);
    const told = new Set<string>();
    const target = make({
      memory: this.#memory,
      problem: (kind, command) => {
        if (told.has(kind)) return;
        told.add(kind);
        this.#onProblem?.({ lun, kind, command });
      },
      changed: () => this.#enumerate(),
    });
    this.#slots[lun] = { target, inFlight: 0, released: undefined };
    this.#enumerate();
    return target;
  }
  /** The guest looks for LUNs anew, and asks each of them whether it is ready: that also finds a unit attention. */
  #enumerate(): void {
    if (this.#phase === "ready") this.#channels.find((c) => c.subIndex === 0)?.notify(ENUMERATE_BUS);
  }

  #executeSrb(channel: StorageChannel, request: StorageRequest, packet: InboundPacket): void {
    const payload = packet.payload;
    if (packet.payloadLength < PACKET_BYTES) {
      this.#violation(channel.relid, `EXECUTE_SRB of ${packet.payloadLength} bytes`);
      request.refuse(NtStatus.invalidParameter);
      return;
    }
    request.beginSrb(payload, packet.ranges);
    if (this.#phase !== "ready") {
      this.#violation(channel.relid, `EXECUTE_SRB in phase ${this.#phase}`);
      request.refuse(NtStatus.invalidDeviceState);
      return;
    }
    const opcode = request.cdb[0]!;
    const needed = Math.max(1, cdbLengthOf(opcode));
    if (
      request.cdbLength > CDB_BYTES ||
      request.cdbLength < needed ||
      packet.ranges.totalBytes < request.transferLength
    ) {
      this.#violation(channel.relid, `SRB with a CDB of ${request.cdbLength} bytes, data of ${request.transferLength}`);
      request.invalid();
      return;
    }
    if (payload[At.path] !== 0 || payload[At.target] !== 0) {
      this.#absent(request, opcode, SrbStatus.invalidTarget);
      return;
    }
    if (opcode === Opcode.reportLuns) {
      this.#reportLuns(request, true);
      return;
    }
    const slot = this.#slots[payload[At.lun]!];
    if (slot === undefined) {
      this.#absent(request, opcode, SrbStatus.invalidLun);
      return;
    }
    slot.inFlight++;
    request.slot = slot;
    slot.target.execute(request);
  }
  /** Nothing is there. INQUIRY says so in its data, since Linux takes every INQUIRY for a success. */
  #absent(request: StorageRequest, opcode: number, srbStatus: number): void {
    if (opcode === Opcode.inquiry) inquiry(request, undefined);
    else if (opcode === Opcode.reportLuns) this.#reportLuns(request, false);
    else request.absent(srbStatus);
  }
  /** SPC-4, "REPORT LUNS command". Answered here, since LUN 0 may be empty. */
  #reportLuns(request: StorageRequest, here: boolean): void {
    const select = request.cdb[2]!;
    if (select > 2) {
      request.check(Sense.invalidFieldInCdb);
      return;
    }
    // Report 1 is of well-known logical units only: there are none.
    const luns = here && select !== 1 ? [...this.#slots.keys()].filter((lun) => this.#slots[lun] !== undefined) : [];
    const data = new Uint8Array(8 + luns.length * 8);
    putBe32(data, 0, luns.length * 8);
    luns.forEach((lun, i) => {
      data[8 + i * 8 + 1] = lun;
    });
    request.goodWithData(data, be32(request.cdb, 6));
  }

  /** Everything but SRBs. Each step of the start-up is right in one phase only. */
  #control(channel: StorageChannel, request: StorageRequest, operation: number, packet: InboundPacket): void {
    const status = this.#step(channel, request, operation, packet);
    if (status !== NtStatus.success && status !== NtStatus.revisionMismatch)
      this.#violation(channel.relid, `VSTOR operation ${operation} in phase ${this.#phase}: 0x${status.toString(16)}`);
    request.answer(status);
    if (operation === Operation.createSubChannels && status === NtStatus.success && this.#granted > 0) {
      invariant(this.#attached !== undefined, "sub-channels are promised, but there is no offer to make them with");
      this.#attached.offerSubChannels(this.#granted);
    }
  }
  #step(channel: StorageChannel, request: StorageRequest, operation: number, packet: InboundPacket): number {
    const reply = request.reply;
    switch (operation) {
      case Operation.beginInitialization:
        return this.#advance(channel, "opened", "begun");
      case Operation.queryProtocolVersion: {
        if (channel.subIndex !== 0 || this.#phase !== "begun") return NtStatus.invalidDeviceState;
        if (packet.payloadLength < At.version + 2) return NtStatus.invalidParameter;
        const version = readU16(packet.payload, At.version);
        if (!VERSIONS.includes(version)) return NtStatus.revisionMismatch;
        this.#version = version;
        return this.#advance(channel, "begun", "versioned");
      }
      case Operation.queryProperties:
        writeU16(reply, At.maxSubChannels, this.#subChannels);
        writeU32(reply, At.propertyFlags, this.#subChannels > 0 ? MULTI_CHANNEL : 0);
        writeU32(reply, At.maxTransferBytes, MAX_TRANSFER_BYTES);
        return this.#advance(channel, "versioned", "propertied");
      case Operation.fchbaData:
        return this.#phase === "propertied" ? NtStatus.invalidDeviceRequest : NtStatus.invalidDeviceState;
      case Operation.endInitialization:
        return this.#advance(channel, "propertied", "ready");
      case Operation.createSubChannels: {
        if (channel.subIndex !== 0 || this.#phase !== "ready" || this.#granted > 0) return NtStatus.invalidDeviceState;
        if (packet.payloadLength < At.subChannelCount + 2) return NtStatus.invalidParameter;
        const count = readU16(packet.payload, At.subChannelCount);
        if (count > this.#subChannels) return NtStatus.invalidParameter;
        this.#granted = count;
        return NtStatus.success;
      }
      case Operation.resetLun:
        if (this.#phase !== "ready") return NtStatus.invalidDeviceState;
        if (packet.payloadLength < PACKET_BYTES) return NtStatus.invalidParameter;
        if (packet.payload[At.path] === 0 && packet.payload[At.target] === 0)
          this.#slots[packet.payload[At.lun]!]?.target.reset();
        return NtStatus.success;
      case Operation.resetBus:
      case Operation.resetAdapter:
        // What is under way goes on: Linux waits for its completions after the reset.
        if (this.#phase !== "ready") return NtStatus.invalidDeviceState;
        for (const slot of this.#slots) slot?.target.reset();
        return NtStatus.success;
      default:
        return NtStatus.invalidDeviceRequest;
    }
  }
  #advance(channel: StorageChannel, from: Phase, to: Phase): number {
    if (channel.subIndex !== 0 || this.#phase !== from) return NtStatus.invalidDeviceState;
    this.#phase = to;
    return NtStatus.success;
  }
}
