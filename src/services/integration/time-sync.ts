/**
 * Time synchronisation: tells the guest what time it is. The first message after negotiation, and the one after a pause, set its
 * clock; the others are samples for its own time keeping (Linux: the PTP device).
 */
import { referenceTime } from "../../hypervisor/reference-time.js";
import type { Clock, Deadlines } from "../../machine/device.js";
import type { Trace } from "../../trace/trace.js";
import { IcDevice } from "./ic-device.js";
import { Ic, IcMessageType, type IcVersion } from "./ic-protocol.js";

const INTERVAL_NS = 5e9;
const Flag = { sync: 1, sample: 2 } as const;
/** 100-ns units from 1601 to 1970. */
const EPOCH = 116_444_736_000_000_000n;
/** Parent time u64, reference time u64, flags, leap, stratum, 3 reserved. */
const BODY_4 = 22;
/** Parent time, child time, round trip (u64 each), flags. */
const BODY_3 = 25;
const STRATUM = 2;

export class TimeSyncService extends IcDevice {
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  readonly #wallClockMs: () => number;
  #syncWanted = false;
  #messages = 0;

  /** @param o.wallClockMs ms since 1970, fractions allowed */
  constructor(o: {
    readonly clock: Clock;
    readonly deadlines: Deadlines;
    readonly trace: Trace;
    readonly wallClockMs: () => number;
  }) {
    super(
      {
        name: "timesync",
        classId: "9527e630-d0ae-497b-adce-e80ab0175caf",
        instanceId: "2dd1ce17-079e-403c-b352-a1921ee207ee",
        versions: [
          [1, 0],
          [3, 0],
          [4, 0],
        ],
        messageType: IcMessageType.timeSync,
      },
      o.trace,
    );
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
    this.#wallClockMs = o.wallClockMs;
    o.deadlines.register("timesync", () => this.#tell());
  }
  /** Samples and settings that the guest has confirmed. */
  get messages(): number {
    return this.#messages;
  }
  /** Sets the guest's clock, now or as soon as it listens: after a pause, after a restored state. */
  synchronize(): void {
    this.#syncWanted = true;
    if (this.free) this.#tell();
  }
  protected onReady(_version: IcVersion): void {
    this.synchronize();
  }
  #tell(): void {
    this.#deadlines.set("timesync", this.#clock.now() + INTERVAL_NS);
    if (!this.free) return;
    const flags = this.#syncWanted ? Flag.sync : Flag.sample;
    this.#syncWanted = false;
    const parent = BigInt(Math.round(this.#wallClockMs() * 10_000)) + EPOCH;
    if (this.version![0] >= 4) {
      this.request(BODY_4, (view) => {
        view.setBigUint64(Ic.body, parent, true);
        // the guest corrects by what its own reference counter has gone on since
        view.setBigUint64(Ic.body + 8, BigInt(referenceTime(this.#clock.now())), true);
        view.setUint8(Ic.body + 16, flags);
        view.setUint8(Ic.body + 18, STRATUM);
      });
    } else {
      this.request(BODY_3, (view) => {
        view.setBigUint64(Ic.body, parent, true);
        view.setUint8(Ic.body + 24, flags);
      });
    }
  }
  protected onReply(status: number): void {
    if (status === 0) this.#messages++;
    if (this.#syncWanted) this.#tell();
  }
  protected onGone(): void {
    this.#deadlines.set("timesync", undefined);
  }
  protected saveComponent(): { readonly syncWanted: boolean; readonly messages: number } {
    return { syncWanted: this.#syncWanted, messages: this.#messages };
  }
  protected restoreComponent(state: unknown): void {
    const s = state as { syncWanted: boolean; messages: number };
    this.#syncWanted = s.syncWanted;
    this.#messages = s.messages;
  }
}
