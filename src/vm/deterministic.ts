/**
 * The deterministic scheduler: one thread, time from retired instructions, everything from outside applied between quanta,
 * entropy from a seed. Two runs with the same seed and input give the same states at the same times.
 */
import type { Clock, Entropy } from "../machine/device.js";
import type { DeviceSideState, DeviceSpec, FromDevices, ToDevices } from "./device-messages.js";
import { DeviceSide } from "./device-side.js";
import { type Inbox, LockstepMachine, type LockstepSide } from "./lockstep.js";
import type { MachineDisks } from "./machine-disks.js";
import { Control, type FromProcessor, type ProcessorStart, type ToProcessor } from "./messages.js";
import type { DeviceHandle, Platform, ProcessorEvents, ProcessorHandle } from "./platform.js";
import { ProcessorThread } from "./processor-thread.js";

/** Turns of the device side in one quantum. */
const MAX_TURNS = 100;

/** A device side on the same thread. */
export interface LocalDevices {
  /** Undefined: the guest sees no hypervisor. */
  readonly spec: DeviceSpec | undefined;
  readonly disks: MachineDisks | undefined;
  readonly saved: DeviceSideState | undefined;
  readonly post: (message: FromDevices) => void;
}

/** Instructions of a quantum; also the grain of virtual time. */
export const QUANTUM = 10_000;
/** One instruction takes one nanosecond. */
const NS_PER_INSTRUCTION = 1;
/** The host's event loop gets a turn this often. */
const TURN_NS = 20e6;

/** Time that moves when the scheduler says so. */
export class VirtualClock implements Clock {
  #idleNs = 0;
  #ns = 0;
  now(): number {
    return this.#ns;
  }
  /** @param retired instructions of the machine so far */
  set(retired: number): void {
    this.#ns = this.#idleNs + retired * NS_PER_INSTRUCTION;
  }
  skip(ns: number): void {
    this.#idleNs += ns;
    this.#ns += ns;
  }
  startAt(ns: number, retired: number): void {
    this.#idleNs = ns - retired * NS_PER_INSTRUCTION;
    this.#ns = ns;
  }
}

/** xorshift32, for the guest's RDRAND: reproducible, not secret. */
export class SeededEntropy implements Entropy {
  #x: number;
  constructor(seed: number) {
    this.#x = seed | 0 || 0x2545f491;
  }
  next(): number {
    let x = this.#x;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#x = x;
    return x;
  }
  get state(): number {
    return this.#x;
  }
  restore(state: number): void {
    this.#x = state;
  }
}

export class DeterministicMachine {
  readonly thread: ProcessorThread;
  readonly clock = new VirtualClock();
  readonly devices: DeviceSide | undefined;
  readonly #deviceMail: () => ToDevices | undefined;

  constructor(
    start: ProcessorStart,
    seed: number,
    post: (message: FromProcessor) => void,
    receive: () => ToProcessor | undefined,
    side?: LocalDevices,
    deviceMail: () => ToDevices | undefined = () => undefined,
  ) {
    const saved = start.spec.saved;
    if (saved !== undefined) this.clock.startAt(saved.timeNs, saved.retired);
    const port = { post: (m: FromProcessor) => post(m), receive };
    this.thread = new ProcessorThread(start, port, this.clock, new SeededEntropy(seed), () => {});
    this.#deviceMail = deviceMail;
    if (side?.spec === undefined) return;
    const { vp } = this.thread.partition;
    this.devices = new DeviceSide({
      spec: side.spec,
      memory: vp.words.buffer,
      ramBytes: start.spec.ramBytes,
      clock: this.clock,
      wallClockMs: () => start.wallClockSeconds * 1000 + this.clock.now() / 1e6,
      post: side.post,
      // one thread: decoded code goes at once
      watcher: {
        written: (gpa, lengthBytes) => {
          vp.runtime.ramWritten(gpa, lengthBytes);
          return false;
        },
        settle: () => {},
      },
      ...(side.disks === undefined ? {} : { disks: side.disks }),
      ...(side.saved === undefined ? {} : { saved: side.saved }),
    });
  }
  get outputBlocked(): boolean {
    return this.thread.outputBlocked;
  }
  /** @returns false when the machine has ended */
  quantum(): boolean {
    const { thread, clock, devices } = this;
    const idleNs = thread.slice(QUANTUM);
    if (thread.ended) return false;
    clock.set(thread.partition.vp.retired);
    if (devices !== undefined) {
      for (let m = this.#deviceMail(); m !== undefined; m = this.#deviceMail()) devices.receive(m);
      for (let turns = 0; devices.turn() && turns < MAX_TURNS; turns++);
      devices.flushTrace();
    }
    if (idleNs <= 0 || thread.paused) return true;
    const { vp } = thread.partition;
    // the devices had something for it
    if (Atomics.load(vp.words, vp.pendingWord) !== 0) return true;
    const wait = Math.min(idleNs, (devices?.nextDeadline() ?? Number.POSITIVE_INFINITY) - clock.now());
    if (Number.isFinite(wait)) clock.skip(Math.max(0, Math.ceil(wait)));
    else {
      thread.end("deadlock", "the guest halted with nothing left to wake it");
      return false;
    }
    return true;
  }
}

/** @param lockstep the machine is there twice, to compare the tiers (lockstep.ts) */
export function startDeterministic(
  platform: Platform,
  start: ProcessorStart,
  seed: number,
  events: ProcessorEvents,
  side: LocalDevices,
  lockstep = false,
): { readonly processor: ProcessorHandle; readonly devices: DeviceHandle | undefined } {
  const mail: ToProcessor[] = [];
  const deviceMail: ToDevices[] = [];
  let stopped = false;
  const make = (regions: boolean, first: boolean): LockstepSide => {
    // the output of the first is seen, and counted where it is taken
    const control = first ? start.control : new Int32Array(start.control.length);
    const inbox: Inbox = { processor: [], devices: [], bump: () => void Atomics.add(control, Control.mail, 1) };
    const spec = { ...start.spec, regions: regions && (start.spec.regions || true) };
    const machine = new DeterministicMachine(
      { ...start, control, spec },
      seed,
      first ? events.onMessage : () => {},
      () => inbox.processor.shift(),
      first ? side : { ...side, post: () => {} },
      () => inbox.devices.shift(),
    );
    return { machine, inbox };
  };
  const run = async (): Promise<void> => {
    const machine = lockstep
      ? new LockstepMachine(make, { processor: mail, devices: deviceMail, bump: () => {} })
      : new DeterministicMachine(
          start,
          seed,
          events.onMessage,
          () => mail.shift(),
          side,
          () => deviceMail.shift(),
        );
    while (!stopped) {
      const turn = platform.now();
      while (platform.now() - turn < TURN_NS && !machine.outputBlocked) if (!machine.quantum()) return;
      await platform.yield();
    }
  };
  run().catch((error: unknown) => events.onFailure(error instanceof Error ? error : new Error(String(error))));
  const processor: ProcessorHandle = {
    post(message) {
      mail.push(message);
      Atomics.add(start.control, Control.mail, 1);
    },
    async terminate() {
      stopped = true;
    },
  };
  if (side.spec === undefined) return { processor, devices: undefined };
  const devices: DeviceHandle = {
    post: (message) => void deviceMail.push(message),
    terminate: async () => void (await side.disks?.close()),
  };
  return { processor, devices };
}
