/** Shutdown: asks the guest to power off or to restart; it says yes, then does it by its own means. */
import type { Trace } from "../../trace/trace.js";
import { IcDevice } from "./ic-device.js";
import { Ic, IcMessageType, type IcVersion } from "./ic-protocol.js";

/** Reason u32, time-out u32, flags u32, 2048 bytes of text: Linux answers nothing shorter. */
const BODY_BYTES = 2060;
const MESSAGE_BYTES = 2048;
/** Planned (Windows, "system shutdown reason codes"). */
const REASON_PLANNED = 0x80000000;
const Flag = { powerOff: 0, restart: 2 } as const;
const FORCE = 1;

export interface ShutdownRequest {
  readonly restart: boolean;
  readonly force: boolean;
  /** Shown by guests that show such things. */
  readonly message: string;
  readonly timeoutSeconds: number;
}
/** What the guest says to a request to go down. */
export type ShutdownOutcome = "accepted" | "refused" | "unsupported" | "not-ready" | "busy";

export class ShutdownService extends IcDevice {
  #waiting: ((outcome: ShutdownOutcome) => void) | undefined;

  constructor(o: { readonly trace: Trace }) {
    super(
      {
        name: "shutdown",
        classId: "0e0b6031-5213-4934-818b-38d90ced39db",
        instanceId: "b6650ff7-33bc-4840-8048-e0676786f393",
        versions: [
          [1, 0],
          [3, 0],
          [3, 1],
          [3, 2],
        ],
        messageType: IcMessageType.shutdown,
      },
      o.trace,
    );
  }
  /** @param done is called once; "accepted" does not mean that the guest has gone down */
  shutDown(request: ShutdownRequest, done: (outcome: ShutdownOutcome) => void): void {
    const { version } = this;
    if (version === undefined) {
      done("not-ready");
      return;
    }
    if (!this.free) {
      done("busy");
      return;
    }
    // restart came with 3.1
    if (request.restart && (version[0] < 3 || (version[0] === 3 && version[1] < 1))) {
      done("unsupported");
      return;
    }
    this.#waiting = done;
    this.request(BODY_BYTES, (view, bytes) => {
      view.setUint32(Ic.body, REASON_PLANNED, true);
      view.setUint32(Ic.body + 4, request.timeoutSeconds, true);
      const flags = (request.restart ? Flag.restart : Flag.powerOff) | (request.force ? FORCE : 0);
      view.setUint32(Ic.body + 8, flags, true);
      // cut between characters, with a 0 behind it
      new TextEncoder().encodeInto(request.message, bytes.subarray(Ic.body + 12, Ic.body + 12 + MESSAGE_BYTES - 1));
    });
  }
  #finish(outcome: ShutdownOutcome): void {
    const done = this.#waiting;
    this.#waiting = undefined;
    done?.(outcome);
  }
  protected onReady(_version: IcVersion): void {}
  protected onReply(status: number): void {
    this.#finish(status === 0 ? "accepted" : "refused");
  }
  protected onGone(): void {
    this.#finish("not-ready");
  }
  protected saveComponent(): undefined {
    return undefined;
  }
  protected restoreComponent(): void {}
}
