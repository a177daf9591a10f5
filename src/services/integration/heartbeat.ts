/** Heartbeat: asks every two seconds whether the guest is there. */
import type { Clock, Deadlines } from "../../machine/device.js";
import type { Trace } from "../../trace/trace.js";
import { IcDevice } from "./ic-device.js";
import { Ic, IcMessageType, type IcVersion } from "./ic-protocol.js";

const INTERVAL_NS = 2e9;
/** Silence after which the guest counts as lost. */
const PATIENCE_NS = 10e9;
/** Sequence u64 and eight words: the longest form (Linux: `struct heartbeat_msg_data`). */
const BODY_BYTES = 40;

/** What the last heartbeats say; "no-contact": there was none yet. */
export type Health = "no-contact" | "ok" | "critical" | "lost";
export interface Heartbeat {
  readonly health: Health;
  readonly replies: number;
}

interface State {
  readonly sequence: number;
  readonly replies: number;
  readonly lastReply: number | undefined;
  readonly applicationState: number;
}

export class HeartbeatService extends IcDevice {
  readonly #clock: Clock;
  readonly #deadlines: Deadlines;
  #sequence = 0;
  #replies = 0;
  #lastReply: number | undefined;
  #applicationState = 0;

  constructor(o: { readonly clock: Clock; readonly deadlines: Deadlines; readonly trace: Trace }) {
    super(
      {
        name: "heartbeat",
        classId: "57164f39-9115-4e78-ab55-382f3bd5422d",
        instanceId: "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0",
        versions: [
          [1, 0],
          [3, 0],
        ],
        messageType: IcMessageType.heartbeat,
      },
      o.trace,
    );
    this.#clock = o.clock;
    this.#deadlines = o.deadlines;
    o.deadlines.register("heartbeat", () => this.#ask());
  }
  get status(): Heartbeat {
    return { health: this.#health(), replies: this.#replies };
  }
  #health(): Health {
    if (this.#lastReply === undefined) return "no-contact";
    if (this.#clock.now() - this.#lastReply > PATIENCE_NS) return "lost";
    return this.#applicationState === 2 ? "critical" : "ok";
  }
  protected onReady(_version: IcVersion): void {
    this.#ask();
  }
  #ask(): void {
    this.#deadlines.set("heartbeat", this.#clock.now() + INTERVAL_NS);
    if (!this.free) return;
    this.#sequence++;
    this.request(BODY_BYTES, (view) => view.setUint32(Ic.body, this.#sequence, true));
  }
  protected onReply(status: number, view: DataView, bodyBytes: number): void {
    // the guest has added 1 to the sequence
    if (status !== 0 || bodyBytes < 16 || view.getUint32(Ic.body, true) !== (this.#sequence + 1) >>> 0) return;
    this.#sequence++;
    this.#replies++;
    this.#applicationState = view.getUint32(Ic.body + 8, true);
    this.#lastReply = this.#clock.now();
  }
  protected onGone(): void {
    this.#deadlines.set("heartbeat", undefined);
    this.#lastReply = undefined;
  }
  protected saveComponent(): State {
    return {
      sequence: this.#sequence,
      replies: this.#replies,
      lastReply: this.#lastReply,
      applicationState: this.#applicationState,
    };
  }
  protected restoreComponent(state: unknown): void {
    const s = state as State;
    this.#sequence = s.sequence;
    this.#replies = s.replies;
    this.#lastReply = s.lastReply;
    this.#applicationState = s.applicationState;
  }
}
