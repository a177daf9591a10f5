/** Which channels have something to do: packets in turn, signals at the end, handlers of failed channels to be told. */
import type { GuestMemory } from "../machine/guest-memory.js";
import { invariant } from "../machine/guest-violation.js";
import { type Trace, TraceKind } from "../trace/trace.js";
import type { SynicPort } from "./device.js";
import type { OpenChannel } from "./open-channel.js";
import { VMBUS_SINT } from "./protocol.js";

/** Packets of one channel before another has its turn. */
const PACKETS_PER_TURN = 32;

export class ChannelScheduler {
  readonly #memory: GuestMemory;
  readonly #synic: SynicPort;
  readonly #trace: Trace;
  /** In order of arrival, as sets are. */
  readonly #ready = new Set<OpenChannel>();
  readonly #waiting = new Set<OpenChannel>();
  readonly #signals = new Set<OpenChannel>();
  readonly #failed = new Set<OpenChannel>();
  #isRunning = false;

  constructor(memory: GuestMemory, synic: SynicPort, trace: Trace) {
    this.#memory = memory;
    this.#synic = synic;
    this.#trace = trace;
  }
  makeReady(channel: OpenChannel): void {
    if (channel.state === "open") this.#ready.add(channel);
  }
  addWaiting(channel: OpenChannel): void {
    this.#waiting.add(channel);
  }
  addSignal(channel: OpenChannel): void {
    this.#signals.add(channel);
  }
  addFailed(channel: OpenChannel): void {
    this.remove(channel);
    this.#failed.add(channel);
  }
  /** It is closed: nothing of it is kept. */
  remove(channel: OpenChannel): void {
    this.#ready.delete(channel);
    this.#waiting.delete(channel);
    this.#signals.delete(channel);
    this.#failed.delete(channel);
  }
  hasSignal(channel: OpenChannel): boolean {
    return this.#signals.has(channel);
  }
  /** @returns whether work is left */
  run(maxPackets: number): boolean {
    invariant(!this.#isRunning, "VmbusServer.run is not called by services");
    this.#isRunning = true;
    try {
      for (const channel of this.#waiting) if (channel.hasAwaitedRoom) this.#ready.add(channel);
      let left = maxPackets;
      for (const channel of this.#ready) {
        if (left <= 0) break;
        // If more is left it makes itself ready again, behind the others.
        this.#ready.delete(channel);
        // A turn that finds nothing costs one too: a guest that moves an index to and fro cannot hold us here.
        left -= Math.max(1, channel.turn(Math.min(left, PACKETS_PER_TURN)));
        if (!channel.isWaiting) this.#waiting.delete(channel);
        this.endFailed();
      }
    } finally {
      this.#isRunning = false;
    }
    return this.#ready.size > 0;
  }
  /** Delivers signals. */
  flush(): void {
    if (this.#signals.size === 0) return;
    this.#memory.settle();
    for (const channel of this.#signals) {
      this.#trace.record(TraceKind.signalOut, channel.relid);
      this.#synic.signal(channel.parameters.targetVp, VMBUS_SINT, channel.relid);
    }
    this.#signals.clear();
  }
  /** Tells the handlers of failed channels. Not done where the failure is found: that may be inside a call of the handler. */
  endFailed(): void {
    for (const channel of this.#failed) {
      this.#failed.delete(channel);
      channel.end();
    }
  }
}
