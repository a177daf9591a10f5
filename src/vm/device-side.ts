/**
 * The host side of VMBus for one machine: bus and services over the machine's memory, beside the processor. It has no thread of its
 * own: the device worker's event loop or the deterministic scheduler calls `turn`.
 */
import { layoutMemory, Pending, Vp } from "../cpu/layout.js";
import { DeviceDoor } from "../hypervisor/device-door.js";
import { hvAreas } from "../hypervisor/shared-areas.js";
import { DeadlineQueue, type DeadlineQueueState } from "../machine/deadlines.js";
import type { Clock } from "../machine/device.js";
import { GuestMemory, type WriteWatcher } from "../machine/guest-memory.js";
import { HeartbeatService } from "../services/integration/heartbeat.js";
import { ShutdownService } from "../services/integration/shutdown.js";
import { TimeSyncService } from "../services/integration/time-sync.js";
import { SocketService } from "../services/sockets/socket-service.js";
import { TraceRing } from "../trace/trace.js";
import type { VmbusDevice } from "../vmbus/device.js";
import { VmbusServer } from "../vmbus/server.js";
import {
  type DeviceSideState,
  type DeviceSpec,
  type DeviceStatus,
  type FromDevices,
  SERVICE_NAMES,
  type ToDevices,
} from "./device-messages.js";
import { type AdapterOptions, MachineAdapters, unplugged } from "./machine-adapters.js";
import type { MachineDisks } from "./machine-disks.js";
import { SocketBridge } from "./socket-bridge.js";

/** Packets that a channel may hand over before another one gets its turn. */
const PACKETS_PER_TURN = 256;

export interface DeviceSideOptions {
  readonly spec: DeviceSpec;
  readonly memory: SharedArrayBuffer | ArrayBuffer;
  readonly ramBytes: number;
  readonly clock: Clock;
  readonly wallClockMs: () => number;
  readonly post: (message: FromDevices, transfer?: readonly ArrayBuffer[]) => void;
  /** Where the processor runs on this very thread, what throws its decoded code away. Default: asks its thread. */
  readonly watcher?: WriteWatcher;
  /** The machine's disks; undefined when storage is not offered. */
  readonly disks?: MachineDisks;
  /** Network adapters by number. Default: those of `spec`, plugged in to nothing. */
  readonly adapters?: Iterable<readonly [number, AdapterOptions]>;
  /** A turn is due, for something that happened outside of one. */
  readonly wake?: () => void;
  readonly saved?: DeviceSideState;
  /** ms that this thread has worked. */
  readonly busyMs?: () => number;
}

export class DeviceSide {
  readonly door: DeviceDoor;
  readonly trace: TraceRing;
  readonly deadlines = new DeadlineQueue();
  readonly #o: DeviceSideOptions;
  readonly #server: VmbusServer;
  readonly #heartbeat: HeartbeatService | undefined;
  readonly #shutdown: ShutdownService | undefined;
  readonly #timeSync: TimeSyncService | undefined;
  readonly #sockets: SocketService | undefined;
  readonly #bridge: SocketBridge | undefined;
  readonly #adapters: MachineAdapters;
  readonly #devices: VmbusDevice[] = [];
  #lightsChanged = false;
  #socketsLit = false;
  #frozen = false;
  #freezing = false;

  constructor(o: DeviceSideOptions) {
    this.#o = o;
    const layout = layoutMemory(o.ramBytes, 1);
    const words = new Int32Array(o.memory);
    const block = layout.vps[0]!.base;
    const areas = hvAreas(o.memory, {
      synic: block + Vp.synic,
      posted: block + Vp.posted,
      partition: block + Vp.partition,
    });
    const pending = (block + Vp.pending) >> 2;
    this.door = new DeviceDoor([areas], () => {
      Atomics.or(words, pending, Pending.interrupt);
      if (words.buffer instanceof SharedArrayBuffer) Atomics.notify(words, pending);
    });
    this.trace = new TraceRing(() => o.clock.now());
    if (o.spec.trace) this.trace.onFull = () => this.#sendTrace();
    const lineMasks = new Int32Array(o.memory, layout.lineMasks, (o.ramBytes >>> 12) * 2);
    const memory = new GuestMemory(
      new Uint8Array(o.memory, layout.ram, o.ramBytes),
      o.watcher ?? this.door.codeWatcher(lineMasks),
    );
    this.#server = new VmbusServer({
      memory,
      synic: this.door,
      trace: this.trace,
      ...(o.spec.maxVersion === undefined ? {} : { maxVersion: o.spec.maxVersion }),
    });
    this.#server.onConnected = () => {
      this.#lightsChanged = true;
    };
    this.#server.onChannelState = (_relid, name, state) => {
      if (name !== "socket") this.#lightsChanged = true;
      else if (state === "open" && !this.#socketsLit) this.#lightsChanged = this.#socketsLit = true;
    };
    const has = (name: string): boolean => (o.spec.services as readonly string[]).includes(name);
    const common = { clock: o.clock, deadlines: this.deadlines, trace: this.trace };
    if (has("heartbeat")) this.#devices.push((this.#heartbeat = new HeartbeatService(common)));
    if (has("shutdown")) this.#devices.push((this.#shutdown = new ShutdownService(common)));
    if (has("timesync"))
      this.#devices.push((this.#timeSync = new TimeSyncService({ ...common, wallClockMs: o.wallClockMs })));
    if (has("storage") && o.disks !== undefined) this.#devices.push(o.disks.controller(memory, this.trace));
    for (const device of this.#devices) {
      const offer = this.#server.offer(device);
      if (o.disks?.device === device) o.disks.offered(offer);
    }
    this.#adapters = new MachineAdapters({
      memory,
      trace: this.trace,
      clock: o.clock,
      deadlines: this.deadlines,
      onWork: () => o.wake?.(),
    });
    if (has("network")) for (const [n, adapter] of o.adapters ?? unplugged(o.spec)) this.#plugIn(n, adapter);
    if (has("sockets")) {
      const server = this.#server;
      this.#sockets = new SocketService({ bus: server, clock: o.clock, deadlines: this.deadlines });
      this.#bridge = new SocketBridge(this.#sockets, o.post);
      server.onTlConnect = (endpoint, service) => this.#sockets!.onTlConnect(endpoint, service);
    }
    if (o.saved !== undefined) this.#restore(o.saved);
  }
  #plugIn(n: number, adapter: AdapterOptions): void {
    this.#adapters.add(n, adapter);
    this.#adapters.offer(n, this.#server);
  }
  /** A network adapter more, while the guest runs. */
  addAdapter(n: number, adapter: AdapterOptions): void {
    this.#plugIn(n, adapter);
    this.#o.wake?.();
  }
  /** @returns false if there is none */
  removeAdapter(n: number): boolean {
    const had = this.#adapters.remove(n);
    this.#o.wake?.();
    return had;
  }
  #restore(s: DeviceSideState): void {
    this.deadlines.restore(s.deadlines as DeadlineQueueState);
    this.#server.restore(s.vmbus as never);
    this.#adapters.restore(s.devices);
    // the guest's clock stood still
    this.#timeSync?.synchronize();
    this.#lightsChanged = true;
  }

  // ---- turns ------------------------------------------------------------------------------------------------------------
  /** Does what is there to do. @returns whether there is more at once */
  turn(): boolean {
    if (this.#frozen) return false;
    const server = this.#server;
    const now = this.#o.clock.now();
    if (this.deadlines.earliest() <= now) this.deadlines.runDue(now);
    this.#adapters.runDue(now);
    server.onQueueSpace();
    this.door.takeMessages(
      () => server.acceptsMessages,
      (payload, length, connection) => server.onMessage(payload, length, connection),
    );
    this.door.takeSignals((relid) => server.onSignal(relid));
    const more = server.run(PACKETS_PER_TURN);
    this.#sockets?.check();
    this.#adapters.flush();
    server.flush();
    if (this.#lightsChanged) this.#sendLights();
    if (this.#freezing) this.#freeze();
    return more || this.#adapters.isFlushDue;
  }
  /** Virtual time in ns at which a turn is due by itself. */
  nextDeadline(): number {
    if (this.#frozen) return Number.POSITIVE_INFINITY;
    return Math.min(this.deadlines.earliest(), this.#adapters.nextDeadline());
  }
  #freeze(): void {
    const disks = this.#o.disks;
    this.#freezing = false;
    const stand = (): void => {
      this.#stand(true);
      this.#o.post({ type: "frozen", state: this.save() });
    };
    if (disks === undefined) stand();
    else disks.quiesce(stand);
  }
  #stand(still: boolean): void {
    if (still) {
      // what sockets brought since the last turn
      this.#adapters.flush();
      this.#server.flush();
    }
    this.#frozen = still;
    this.#adapters.isHeld = still;
  }
  save(): DeviceSideState {
    const { macs } = this.#adapters;
    return {
      version: 1,
      services: this.#o.spec.services,
      vmbus: this.#server.save(),
      devices: this.#adapters.save(),
      ...(macs[0] === undefined ? {} : { mac: macs[0], macs }),
      deadlines: {
        ...this.deadlines.save(),
        armed: this.deadlines.save().armed.filter(({ id }) => !id.startsWith("socket")),
      },
    };
  }
  #sendLights(): void {
    this.#lightsChanged = false;
    const version = this.#version();
    const open = new Set<string>();
    for (const c of this.#server.channels()) if (c.state === "open" && c.name !== "socket") open.add(c.name);
    // the driver of sockets has no device of its own: the first connection shows it
    if (this.#socketsLit) open.add("sockets");
    this.#o.post({ type: "lights", vmbusVersion: version, open: SERVICE_NAMES.filter((name) => open.has(name)) });
  }
  #version(): string | undefined {
    const version = this.#server.connection?.version;
    return version === undefined ? undefined : `${version >>> 16}.${version & 0xffff}`;
  }
  #sendTrace(): void {
    this.#o.post({ type: "trace", records: this.trace.take() });
  }
  /** Sends records that are collected: before a wait. */
  flushTrace(): void {
    if (!this.#o.spec.trace) return;
    const records = this.trace.take();
    if (records.length > 0) this.#o.post({ type: "trace", records });
  }

  // ---- the API's messages -------------------------------------------------------------------------------------------------
  receive(m: ToDevices): void {
    const { post } = this.#o;
    switch (m.type) {
      case "shutdown": {
        const done = (outcome: Parameters<Parameters<ShutdownService["shutDown"]>[1]>[0]): void =>
          post({ type: "shutdown-answer", id: m.id, outcome });
        if (this.#shutdown === undefined) done("not-ready");
        else this.#shutdown.shutDown(m.request, done);
        break;
      }
      case "synchronize":
        this.#timeSync?.synchronize();
        break;
      case "status":
        post({ type: "status", id: m.id, status: this.status() });
        break;
      case "trace":
        post({ type: "trace-answer", id: m.id, records: this.trace.last() });
        break;
      case "link":
        post({ type: "network-answer", id: m.id, done: this.#adapters.setLink(m.number, m.up) });
        break;
      case "freeze":
        if (this.#frozen) post({ type: "frozen", state: this.save() });
        else this.#freezing = true;
        break;
      case "thaw":
        this.#stand(false);
        break;
      case "add-disk":
      case "remove-disk":
      case "publish":
      case "unpublish":
      case "allow":
      case "add-adapter":
      case "remove-adapter":
      case "machine":
        break; // the worker's
      default:
        this.#bridge?.receive(m);
    }
  }
  status(): DeviceStatus {
    const adapters = this.#adapters.status();
    return {
      vmbusVersion: this.#version(),
      channels: this.#server.channels(),
      heartbeat: this.#heartbeat?.status,
      timeSync: this.#timeSync === undefined ? undefined : { messages: this.#timeSync.messages },
      disks: this.#o.disks?.status() ?? [],
      network: adapters[0],
      adapters,
      sockets: this.#sockets?.count ?? 0,
      shares: this.#o.spec.shares ?? [],
      shareCalls: this.#adapters.fileCalls,
      busyMs: this.#o.busyMs?.(),
    };
  }
}
