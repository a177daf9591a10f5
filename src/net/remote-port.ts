/**
 * A cable between two threads: frames travel in messages, many in one, with a window, so that what the other side has no room for does
 * not pile up. Each side has a `RemotePort` at the far end of an ordinary cable; the messages' way is given by whoever makes it.
 */
import type { EthernetPort } from "./port.js";

export interface RemoteFrame {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly flags: number;
  readonly segmentSize: number;
}
export type RemoteMessage =
  | { readonly type: "frames"; readonly frames: readonly RemoteFrame[] }
  /** So many bytes have been handed over, or given up. */
  | { readonly type: "taken"; readonly bytes: number }
  /** The far side is gone: the cable is out. */
  | { readonly type: "out" };

/** Bytes on their way at most, and beside them so much for each frame. */
const WINDOW = 2 << 20;
const FRAME_COST = 256;
const costOf = (frame: { readonly length: number }): number => frame.length + FRAME_COST;

export class RemotePort {
  readonly #end: EthernetPort;
  readonly #send: (message: RemoteMessage, transfer: readonly ArrayBuffer[]) => void;
  #unsent: RemoteFrame[] = [];
  /** On their way, the unsent too. */
  #onTheirWay = 0;
  #isRefused = false;
  /** What the cable had no room for, in order. */
  readonly #waiting: RemoteFrame[] = [];
  #waitingBytes = 0;
  #taken = 0;
  /** Frames in both directions. */
  frames = 0;
  /** Frames of a peer that did not keep to the window. */
  dropped = 0;

  /** @param end this side's end of a cable whose other end an adapter or a switch has */
  constructor(end: EthernetPort, send: (message: RemoteMessage, transfer: readonly ArrayBuffer[]) => void) {
    this.#end = end;
    this.#send = send;
    end.receive = (frame, flags, segmentSize) => {
      if (this.#onTheirWay >= WINDOW) {
        this.#isRefused = true;
        return false;
      }
      this.#onTheirWay += costOf(frame);
      this.frames++;
      this.#unsent.push({ bytes: frame.slice() as Uint8Array<ArrayBuffer>, flags, segmentSize });
      return true;
    };
    end.onRoom = () => this.#handOver();
  }
  /** Pulls the cable out at the far side. */
  unplug(): void {
    this.#send({ type: "out" }, []);
  }
  /** Sends what has been collected: at the end of each turn. */
  flush(): void {
    if (this.#unsent.length > 0) {
      const frames = this.#unsent;
      this.#unsent = [];
      this.#send(
        { type: "frames", frames },
        frames.map(({ bytes }) => bytes.buffer),
      );
    }
    if (this.#taken === 0) return;
    const bytes = this.#taken;
    this.#taken = 0;
    this.#send({ type: "taken", bytes }, []);
  }
  take(message: RemoteMessage): void {
    switch (message.type) {
      case "frames":
        for (const frame of message.frames) {
          if (this.#waitingBytes >= 2 * WINDOW) {
            this.dropped++;
            continue;
          }
          this.#waiting.push(frame);
          this.#waitingBytes += costOf(frame.bytes);
        }
        this.#handOver();
        break;
      case "taken":
        this.#onTheirWay = Math.max(0, this.#onTheirWay - message.bytes);
        if (!this.#isRefused || this.#onTheirWay >= WINDOW) break;
        this.#isRefused = false;
        this.#end.room();
        break;
      case "out":
        this.#end.up = false;
        break;
    }
  }
  #handOver(): void {
    let done = 0;
    for (const { bytes, flags, segmentSize } of this.#waiting) {
      if (!this.#end.transmit(bytes, flags, segmentSize)) break;
      this.frames++;
      done++;
      this.#taken += costOf(bytes);
      this.#waitingBytes -= costOf(bytes);
    }
    this.#waiting.splice(0, done);
  }
}
