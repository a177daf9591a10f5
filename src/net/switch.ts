/**
 * A learning switch: IEEE 802.1D "Forwarding Process", "Learning Process". It joins any number of ports; virtual LANs share one
 * table of addresses. For tests it can lose, double, delay and spoil frames.
 */
import { formatMac, isGroupMac } from "./address.js";
import type { NetClock } from "./link.js";
import { EtherType } from "./packet.js";
import type { EthernetPort } from "./port.js";
import { asOnWire } from "./segmentation.js";
import { Timer, Timers } from "./timers.js";

/**
 * What goes wrong on purpose: chances from 0 to 1, for each frame and port that it leaves by. Such a switch is a wire: segments are cut to
 * the MTU, and checksums filled in.
 */
export interface Impairments {
  readonly loss?: number;
  readonly duplicate?: number;
  /** Held back by up to `reorderNs`, so that later frames overtake it. */
  readonly reorder?: number;
  readonly reorderNs?: number;
  /** One bit is changed; such a frame is sent without its flags, so that checksums are looked at. ARP has none, and is left alone. */
  readonly corrupt?: number;
  /** Every frame takes as long. */
  readonly delayNs?: number;
}

/** What a switch is made of. */
export interface SwitchOptions {
  readonly clock: NetClock;
  readonly impairments?: Impairments;
  /** 32 bits by chance; needed for impairments. */
  readonly random32?: () => number;
  readonly maxAddresses?: number;
  readonly ageingSeconds?: number;
  /** `nextDeadline` has come nearer. */
  readonly onDeadline?: () => void;
}

/** Counters of one switch. */
export interface SwitchStatistics {
  forwarded: number;
  flooded: number;
  /** Addressed to where it came from, or to the switch's own protocols. */
  filtered: number;
  /** A port had no room. */
  full: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupted: number;
}

interface Learned {
  port: EthernetPort;
  seen: number;
}

const MAX_HELD = 4096;

/** The switch. */
export class Switch {
  readonly statistics: SwitchStatistics = {
    forwarded: 0,
    flooded: 0,
    filtered: 0,
    full: 0,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
  };
  readonly #o: SwitchOptions;
  readonly #timers: Timers;
  readonly #ports = new Set<EthernetPort>();
  /** By the address as a number; in the order of their last frames' learning. */
  readonly #table = new Map<number, Learned>();
  readonly #ageNs: number;
  readonly #max: number;
  #held = 0;

  constructor(options: SwitchOptions) {
    this.#o = options;
    this.#timers = new Timers(options.onDeadline);
    this.#ageNs = (options.ageingSeconds ?? 300) * 1e9;
    this.#max = options.maxAddresses ?? 1024;
  }

  /** Puts the switch's end of a cable in. */
  attach(port: EthernetPort): void {
    this.#ports.add(port);
    port.receive = (frame, flags, segmentSize) => this.#receive(port, frame, flags, segmentSize);
    port.onRoom = () => {
      // who was told that there is no room does not know which port it was
      for (const other of this.#ports) if (other !== port) other.room();
    };
    port.onLink = () => {
      if (!port.link) this.#forget(port);
    };
  }
  detach(port: EthernetPort): void {
    this.#ports.delete(port);
    this.#forget(port);
    port.receive = () => true;
    port.onRoom = () => {};
    port.onLink = () => {};
  }

  /** Addresses that are known, as texts. */
  get addresses(): string[] {
    return [...this.#table.keys()].map((n) => {
      const bytes = Array.from({ length: 6 }, (_, i) => Math.floor(n / 2 ** (40 - 8 * i)) & 255);
      return formatMac(Uint8Array.from(bytes));
    });
  }

  nextDeadline(): number {
    return this.#timers.next();
  }
  runDue(now: number): void {
    this.#timers.runDue(now);
  }

  #forget(port: EthernetPort): void {
    for (const [mac, learned] of this.#table) if (learned.port === port) this.#table.delete(mac);
  }

  #receive(from: EthernetPort, frame: Uint8Array, flags: number, segmentSize: number): boolean {
    if (frame.length < 14 || isGroupMac(frame, 6)) {
      this.statistics.filtered++;
      return true;
    }
    this.#learn(macNumber(frame, 6), from);
    if (!isGroupMac(frame)) {
      const known = this.#lookUp(macNumber(frame, 0));
      if (known !== undefined) {
        if (known === from) {
          this.statistics.filtered++;
          return true;
        }
        this.statistics.forwarded++;
        return this.#leave(known, frame, flags, segmentSize);
      }
    } else if (isReserved(frame)) {
      this.statistics.filtered++;
      return true;
    }
    this.statistics.flooded++;
    // each port is on its own: one without room is no reason to send all others the frame again
    for (const port of this.#ports) if (port !== from) this.#leave(port, frame, flags, segmentSize);
    return true;
  }

  #learn(mac: number, port: EthernetPort): void {
    const now = this.#o.clock.now();
    const known = this.#table.get(mac);
    if (known !== undefined) {
      known.port = port;
      known.seen = now;
      return;
    }
    if (this.#table.size >= this.#max) {
      for (const [old, learned] of this.#table) if (now - learned.seen >= this.#ageNs) this.#table.delete(old);
      if (this.#table.size >= this.#max) this.#table.delete(this.#table.keys().next().value!);
    }
    this.#table.set(mac, { port, seen: now });
  }
  #lookUp(mac: number): EthernetPort | undefined {
    const known = this.#table.get(mac);
    if (known === undefined) return undefined;
    if (this.#o.clock.now() - known.seen < this.#ageNs) return known.port;
    this.#table.delete(mac);
    return undefined;
  }

  #leave(port: EthernetPort, frame: Uint8Array, flags: number, segmentSize: number): boolean {
    const im = this.#o.impairments;
    if (im === undefined) return this.#send(port, frame, flags, segmentSize);
    asOnWire(frame, flags, segmentSize, (one) => this.#impair(port, one, one === frame ? flags : 0, im));
    return true; // a wire does not say what it lost
  }
  #impair(port: EthernetPort, frame: Uint8Array, flags: number, im: Impairments): void {
    if (this.#chance(im.loss)) {
      this.statistics.lost++;
      return;
    }
    const delay = im.delayNs ?? 0;
    if (this.#chance(im.duplicate)) {
      this.statistics.duplicated++;
      this.#later(port, frame.slice(), flags, delay + 1);
    }
    if (this.#chance(im.corrupt) && !isArp(frame)) {
      this.statistics.corrupted++;
      const spoilt = frame.slice();
      const bit = this.#o.random32!() >>> 0;
      spoilt[14 + ((bit >>> 3) % (frame.length - 13)) - 1]! ^= 1 << (bit & 7);
      this.#later(port, spoilt, 0, delay);
    } else if (this.#chance(im.reorder)) {
      this.statistics.reordered++;
      const extra = (this.#o.random32!() >>> 0) % (im.reorderNs ?? 1_000_000);
      this.#later(port, frame.slice(), flags, delay + extra);
    } else if (im.delayNs !== undefined) this.#later(port, frame.slice(), flags, delay);
    else this.#send(port, frame, flags, 0);
  }
  #chance(of: number | undefined): boolean {
    return of !== undefined && of > 0 && (this.#o.random32!() >>> 0) / 2 ** 32 < of;
  }
  #later(port: EthernetPort, frame: Uint8Array, flags: number, ns: number): void {
    if (this.#held >= MAX_HELD) {
      this.statistics.lost++;
      return;
    }
    this.#held++;
    new Timer(this.#timers, () => {
      this.#held--;
      this.#send(port, frame, flags, 0);
    }).set(this.#o.clock.now() + ns);
  }
  #send(port: EthernetPort, frame: Uint8Array, flags: number, segmentSize: number): boolean {
    const ok = port.transmit(frame, flags, segmentSize);
    if (!ok) this.statistics.full++;
    return ok;
  }
}

function isArp(frame: Uint8Array): boolean {
  return frame[12] === EtherType.ARP >> 8 && frame[13] === (EtherType.ARP & 255);
}
function macNumber(frame: Uint8Array, at: number): number {
  const high = (frame[at]! << 8) | frame[at + 1]!;
  const low = (frame[at + 2]! << 24) | (frame[at + 3]! << 16) | (frame[at + 4]! << 8) | frame[at + 5]!;
  return high * 0x1_0000_0000 + (low >>> 0);
}
/** 01-80-C2-00-00-0X: IEEE 802.1D "Reserved addresses" */
function isReserved(frame: Uint8Array): boolean {
  return frame[0] === 1 && frame[1] === 0x80 && frame[2] === 0xc2 && frame[3] === 0 && frame[4] === 0 && frame[5]! < 16;
}
