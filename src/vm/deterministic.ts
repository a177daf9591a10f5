/**
 * The deterministic scheduler: one thread, time from retired instructions, everything from outside applied between quanta,
 * entropy from a seed. Two runs with the same seed and input give the same states at the same times.
 */
import type { Clock, Entropy } from "../machine/device.js";
import { Control, type FromProcessor, type ProcessorStart, type ToProcessor } from "./messages.js";
import type { Platform, ProcessorEvents, ProcessorHandle } from "./platform.js";
import { ProcessorThread } from "./processor-thread.js";

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

  constructor(
    start: ProcessorStart,
    seed: number,
    post: (message: FromProcessor) => void,
    receive: () => ToProcessor | undefined,
  ) {
    const saved = start.spec.saved;
    if (saved !== undefined) this.clock.startAt(saved.timeNs, saved.retired);
    this.thread = new ProcessorThread(start, { post: (m) => post(m), receive }, this.clock, new SeededEntropy(seed));
  }
  /** @returns false when the machine has ended */
  quantum(): boolean {
    const { thread, clock } = this;
    const idleNs = thread.slice(QUANTUM);
    if (thread.ended) return false;
    clock.set(thread.partition.vp.retired);
    if (idleNs > 0) {
      if (!Number.isFinite(idleNs)) {
        thread.end("deadlock", "the guest halted with nothing left to wake it");
        return false;
      }
      clock.skip(Math.ceil(idleNs));
    }
    return true;
  }
}

export function startDeterministic(
  platform: Platform,
  start: ProcessorStart,
  seed: number,
  events: ProcessorEvents,
): ProcessorHandle {
  const mail: ToProcessor[] = [];
  let stopped = false;
  const run = async (): Promise<void> => {
    const machine = new DeterministicMachine(start, seed, events.onMessage, () => mail.shift());
    while (!stopped) {
      const turn = platform.now();
      while (platform.now() - turn < TURN_NS && !machine.thread.outputBlocked) if (!machine.quantum()) return;
      await platform.yield();
    }
  };
  run().catch((error: unknown) => events.onFailure(error instanceof Error ? error : new Error(String(error))));
  return {
    post(message) {
      mail.push(message);
      Atomics.add(start.control, Control.mail, 1);
    },
    async terminate() {
      stopped = true;
    },
  };
}
