/** The network adapters of one machine: number 0 is the one that every machine has, others are beside it and may come and go. */
import type { DeadlineQueue } from "../machine/deadlines.js";
import type { Clock } from "../machine/device.js";
import type { GuestMemory } from "../machine/guest-memory.js";
import { parseMac } from "../net/address.js";
import { EthernetPort } from "../net/port.js";
import { NetworkAdapter } from "../services/network/adapter.js";
import type { TraceRing } from "../trace/trace.js";
import type { Offer } from "../vmbus/device.js";
import type { VmbusServer } from "../vmbus/server.js";
import type { DeviceSpec, NetworkDeviceStatus, NetworkSpec } from "./device-messages.js";
import { type MachineNetworkState, type NetworkPlug, networkStatus } from "./machine-network.js";

/** As many as Hyper-V has. */
export const MAX_ADAPTERS = 8;
/** Of number n, that much later: the same in every machine, so that guests keep their device names. */
const INSTANCE = { prefix: "9c0d7a3e-2b61-4f58-b1c7-3e5a8d90", last: 0xf412 } as const;

export interface AdapterOptions {
  readonly spec: NetworkSpec;
  /** What it is plugged in to; undefined: nothing. */
  readonly plug: NetworkPlug | undefined;
}
export interface MachineAdaptersOptions {
  readonly memory: GuestMemory;
  readonly trace: TraceRing;
  readonly clock: Clock;
  readonly deadlines: DeadlineQueue;
  /** A turn of the device side is due. */
  readonly onWork: () => void;
}
/**
 * When a device is rescinded, Linux's driver waits for completions of what it has sent, but looks at the ring no more, and cannot
 * complete what it has got (vmbus_chan_sched, netvsc_device_idle): one frame under way, and it waits for ever. So the cable is taken
 * out first, and the offer when nothing has been under way for a while. The driver may look at the cable only 2 s after it did last.
 */
const QUIET_NS = 100e6;
const LOOK_NS = 20e6;
/** A guest that is never quiet is not waited for. */
const LEAVE_NS = 5e9;
/** Times are the machine's. */
interface Leaving {
  readonly number: number;
  readonly adapter: NetworkAdapter;
  readonly offer: Offer;
  readonly until: number;
  /** Infinity: the offer is rescinded. */
  lookAt: number;
  quietSince: number;
  sentFrames: number;
}
interface Plugged extends AdapterOptions {
  readonly adapter: NetworkAdapter;
  offer: Offer | undefined;
}

export class MachineAdapters {
  readonly #o: MachineAdaptersOptions;
  readonly #all = new Map<number, Plugged>();
  /** Taken away, but not yet let go of by the guest: its driver waits for its last frames. */
  readonly #leaving = new Set<Leaving>();

  constructor(o: MachineAdaptersOptions) {
    this.#o = o;
  }
  /** Makes the device; `offer` shows it to the guest. */
  add(n: number, { spec, plug }: AdapterOptions): void {
    const { memory, trace, clock, deadlines, onWork } = this.#o;
    const mac = parseMac(spec.mac);
    if (mac === undefined) throw new RangeError(`not a link address: ${spec.mac}`);
    for (const leaving of [...this.#leaving].filter(({ number }) => number === n)) {
      this.#rescind(leaving);
      leaving.adapter.retire();
    }
    const adapter = new NetworkAdapter({
      instanceId: INSTANCE.prefix + (INSTANCE.last + n).toString(16),
      mac,
      port: plug?.port ?? new EthernetPort(),
      memory,
      trace,
      patience: { clock, deadlines },
      onWork,
      ...(spec.maxSubChannels === undefined ? {} : { maxSubChannels: spec.maxSubChannels }),
    });
    plug?.attach(clock);
    this.#all.set(n, { spec, plug, adapter, offer: undefined });
  }
  offer(n: number, server: VmbusServer): void {
    const plugged = this.#all.get(n)!;
    const { adapter } = plugged;
    plugged.offer = server.offer(adapter, {
      released: () => {
        for (const leaving of this.#leaving) if (leaving.adapter === adapter) this.#leaving.delete(leaving);
        adapter.retire();
      },
    });
    plugged.adapter.attach(plugged.offer);
  }
  /** The guest's driver lets go of it. @returns false if there is none */
  remove(n: number): boolean {
    const plugged = this.#all.get(n);
    if (plugged === undefined) return false;
    this.#all.delete(n);
    const { adapter, offer } = plugged;
    if (offer === undefined) adapter.retire();
    else {
      const now = this.#o.clock.now();
      adapter.leave();
      const { transmittedFrames } = adapter.statistics;
      this.#leaving.add({
        ...{ number: n, adapter, offer, until: now + LEAVE_NS },
        ...{ lookAt: now + LOOK_NS, quietSince: now, sentFrames: transmittedFrames },
      });
    }
    return true;
  }
  #lookAt(leaving: Leaving, now: number): void {
    const { adapter, until, sentFrames } = leaving;
    leaving.sentFrames = adapter.statistics.transmittedFrames;
    if (!adapter.isQuiet || sentFrames !== leaving.sentFrames) leaving.quietSince = now;
    leaving.lookAt = now + LOOK_NS;
    if (now - leaving.quietSince >= QUIET_NS || now >= until) this.#rescind(leaving);
  }
  #rescind(leaving: Leaving): void {
    leaving.lookAt = Number.POSITIVE_INFINITY;
    leaving.offer.rescind();
  }
  /** Takes the adapter's end of its cable out, or puts it in. @returns false if there is no such adapter */
  setLink(n: number, up: boolean): boolean {
    const plugged = this.#all.get(n);
    plugged?.adapter.setLink(up);
    return plugged !== undefined;
  }

  flush(): void {
    for (const { adapter, plug } of this.#all.values()) {
      adapter.flush();
      plug?.flush();
    }
    for (const { adapter } of this.#leaving) adapter.flush();
  }
  get isFlushDue(): boolean {
    for (const { adapter } of this.#all.values()) if (adapter.isFlushDue) return true;
    for (const { adapter } of this.#leaving) if (adapter.isFlushDue) return true;
    return false;
  }
  nextDeadline(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const { lookAt } of this.#leaving) next = Math.min(next, lookAt);
    for (const { plug } of this.#all.values()) next = Math.min(next, plug?.nextDeadline() ?? Number.POSITIVE_INFINITY);
    return next;
  }
  runDue(now: number): void {
    for (const leaving of [...this.#leaving]) if (leaving.lookAt <= now) this.#lookAt(leaving, now);
    for (const { plug } of this.#all.values()) if (plug !== undefined && plug.nextDeadline() <= now) plug.runDue(now);
  }
  set isHeld(held: boolean) {
    for (const { plug } of this.#all.values()) if (plug !== undefined) plug.isHeld = held;
  }

  /** By name: "network", "network1". */
  save(): Record<string, MachineNetworkState> {
    const states: Record<string, MachineNetworkState> = {};
    for (const [n, { plug }] of this.#all) if (plug !== undefined) states[nameOf(n)] = plug.save();
    return states;
  }
  restore(states: Readonly<Record<string, unknown>>): void {
    for (const [n, { spec, plug, adapter }] of this.#all) {
      const state = states[nameOf(n)] as MachineNetworkState | undefined;
      if (state !== undefined) plug?.restore(state, spec.allow);
      // other wires, even where addresses are the same
      adapter.networkChange();
    }
  }
  /** Addresses by number. */
  get macs(): Record<number, string> {
    return Object.fromEntries([...this.#all].map(([n, { spec }]) => [n, spec.mac]));
  }
  status(): NetworkDeviceStatus[] {
    return [...this.#all]
      .sort(([a], [b]) => a - b)
      .map(([number, { adapter, plug }]) => ({ number, ...networkStatus(adapter, plug) }));
  }
  /** Calls that the guest's file system has made of shares. */
  get fileCalls(): number {
    return this.#all.get(0)?.plug?.fileCalls ?? 0;
  }
}
/** The adapters of a machine that has no networks. */
export function unplugged({ network, adapters = [] }: DeviceSpec): [number, AdapterOptions][] {
  const specs = network === undefined ? [] : [network, ...adapters];
  return specs.map((spec, n) => [n, { spec, plug: undefined }]);
}
const nameOf = (n: number): string => (n === 0 ? "network" : `network${n}`);
