/**
 * A guest for tests of the integration components: the scripted guest of VMBus with drivers that answer as Linux's hv_utils does,
 * in the request's own buffer, with the same length.
 */
import { DeadlineQueue } from "../../machine/deadlines.js";
import { TraceKind, TraceRing } from "../../trace/trace.js";
import type { VmbusDevice } from "../../vmbus/device.js";
import { type GuestChannel, ScriptedGuest } from "../../vmbus/scripted-guest.js";

/** Where things lie in a message (Linux: `struct vmbuspipe_hdr`, `icmsg_hdr`, `icmsg_negotiate`). */
const At = { type: 12, status: 20, flags: 25, body: 28 } as const;
const RESPONSE = 5;
export type Version = readonly [major: number, minor: number];

export class IcGuest {
  readonly guest: ScriptedGuest;
  readonly deadlines = new DeadlineQueue();
  readonly trace = new TraceRing(() => 0, 4000);
  nowNs = 0;
  readonly clock = { now: (): number => this.nowNs };

  constructor() {
    this.guest = new ScriptedGuest({ trace: this.trace, bytes: 1 << 20 });
  }
  /** Offers a device, connects if that has not been done, and loads the driver. Rings have 3 pages of data as Linux has them. */
  load(device: VmbusDevice): IcDriver {
    this.guest.server.offer(device);
    if (this.guest.version === 0) this.guest.connect();
    else this.guest.turn();
    return this.open(device);
  }
  open(device: VmbusDevice): IcDriver {
    return new IcDriver(this, this.guest.open(device.offer.classId, { ringPages: 4 }));
  }
  violations(): string[] {
    const records = this.trace.take().filter((r) => r.kind === TraceKind.violation);
    return records.map((r) => new TextDecoder().decode(r.bytes));
  }
  /** Goes on to a time, with all that is due on the way. */
  runTo(ns: number): void {
    while (this.deadlines.earliest() <= ns) {
      this.nowNs = Math.max(this.nowNs, this.deadlines.earliest());
      this.deadlines.runDue(this.nowNs);
      this.guest.turn();
    }
    this.nowNs = Math.max(this.nowNs, ns);
    this.guest.turn();
  }
}

export class IcDriver {
  readonly channel: GuestChannel;
  readonly #guest: IcGuest;

  constructor(guest: IcGuest, channel: GuestChannel) {
    this.#guest = guest;
    this.channel = channel;
  }
  /** The requests that have come. */
  requests(): Uint8Array<ArrayBuffer>[] {
    this.#guest.guest.turn();
    return this.channel.receiveAll().map((p) => p.payload);
  }
  /** The one request that has come. */
  request(): Uint8Array<ArrayBuffer> {
    const all = this.requests();
    if (all.length !== 1) throw new Error(`${all.length} requests`);
    return all[0]!;
  }
  /** Sends it back as an answer. */
  answer(request: Uint8Array<ArrayBuffer>, change: (view: DataView) => void = () => {}): void {
    const reply = request.slice();
    const view = new DataView(reply.buffer);
    view.setUint8(At.flags, RESPONSE);
    change(view);
    this.send(reply);
  }
  send(packet: Uint8Array): void {
    this.channel.send(packet);
    this.#guest.guest.turn();
  }
  /**
   * Answers the negotiation as Linux does: the highest of its own versions that the host lists exactly, counts of 0 where there is
   * none. @returns what it chose
   */
  negotiate(
    framework: readonly Version[],
    message: readonly Version[],
    request = this.request(),
  ): (string | undefined)[] {
    const view = new DataView(request.buffer);
    const counts = [view.getUint16(At.body, true), view.getUint16(At.body + 2, true)] as const;
    const listed = Array.from({ length: counts[0] + counts[1] }, (_, i) =>
      [view.getUint16(At.body + 8 + i * 4, true), view.getUint16(At.body + 10 + i * 4, true)].join("."),
    );
    const choose = (mine: readonly Version[], theirs: readonly string[]): Version | undefined =>
      mine.find((v) => theirs.includes(v.join(".")));
    const chosen = [choose(framework, listed.slice(0, counts[0])), choose(message, listed.slice(counts[0]))] as const;
    const found = chosen[0] !== undefined && chosen[1] !== undefined;
    this.answer(request, (v) => {
      v.setUint16(18, 16, true);
      v.setUint16(At.body, found ? 1 : 0, true);
      v.setUint16(At.body + 2, found ? 1 : 0, true);
      chosen.forEach((version, i) => {
        v.setUint16(At.body + 8 + i * 4, version?.[0] ?? 0, true);
        v.setUint16(At.body + 10 + i * 4, version?.[1] ?? 0, true);
      });
    });
    return chosen.map((v) => v?.join("."));
  }
  /** hv_utils 6.1, with all that it knows of a component. */
  negotiateAsLinux(...message: Version[]): void {
    this.negotiate(
      [
        [3, 0],
        [1, 0],
      ],
      message,
    );
  }
}
