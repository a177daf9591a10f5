/** What a TCP endpoint is given and what it tells: its settings, its wire, its user. Terms are those of RFC 9293. */
import type { Budget } from "./byte-queue.js";
import type { FrameBuffer } from "./header.js";

/** States of RFC 9293 "State Machine Overview"; `held` is a SYN that was neither accepted nor refused yet. */
export type TcpState =
  | "held"
  | "syn-sent"
  | "syn-received"
  | "established"
  | "fin-wait-1"
  | "fin-wait-2"
  | "close-wait"
  | "closing"
  | "last-ack"
  | "time-wait"
  | "closed";

/** Why a connection is over. */
export type TcpEnd = "done" | "reset" | "refused" | "timeout" | "aborted";

/** What an endpoint is to do and where its limits are. */
export interface TcpSettings {
  readonly localPort: number;
  readonly remotePort: number;
  /** What to tell the peer that a segment may hold. */
  readonly mss: number;
  /** Most bytes of data in one frame; above `mss`: long segments. */
  readonly longSegment: number;
  /** Bytes received that the user has not consumed. */
  readonly receiveBytes: number;
  /** Bytes to send, above which `send` asks to wait. */
  readonly sendBytes: number;
  readonly budget: Budget;
}

/** Where segments go. */
export interface TcpWire {
  now(): number;
  /** Where the TCP header begins in a frame. */
  readonly transportAt: number;
  /** A frame to write into; undefined if none can be sent now. */
  begin(): FrameBuffer | undefined;
  /**
   * Adds what is around the segment and sends it.
   * @param segmentSize 0, or what a long segment is to be cut to
   * @returns false if there is no room: `room` of the endpoint is called when there is
   */
  end(f: FrameBuffer, headerBytes: number, dataBytes: number, segmentSize: number): boolean;
}

/** Who uses the connection. Calls into the endpoint from within are fine. */
export interface TcpUser {
  /** The handshake is done. */
  onConnect(): void;
  /** @param bytes valid until the return; `consumed` opens the window again */
  onData(bytes: Uint8Array): void;
  /** The peer will send no more. */
  onEnd(): void;
  /** `send` may go on. */
  onWritable(): void;
  /** Both directions are over; not called for `abort`. */
  onClose(why: TcpEnd): void;
  /** The endpoint is "closed": nothing has to be sent to it any more. The last event, always. */
  onReleased(): void;
}
