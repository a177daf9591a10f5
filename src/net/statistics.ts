/** What the router counts, and what it tells of live flows. */
import type { DropReason } from "./packet.js";

/** Counters since the router was made. */
export class NatStatistics {
  framesIn = 0;
  bytesIn = 0;
  framesOut = 0;
  bytesOut = 0;
  /** Packets given up, by reason. */
  readonly dropped = new Map<DropReason, number>();
  tcpOpened = 0;
  /** Connections that the outside refused or did not answer. */
  tcpFailed = 0;
  tcpReset = 0;
  tcpClosed = 0;
  tcpRetransmissions = 0;
  /** Bytes of connections, without headers. */
  tcpBytesToHost = 0;
  tcpBytesToGuest = 0;
  udpOpened = 0;
  udpToHost = 0;
  udpToGuest = 0;
  dnsQueries = 0;
  dnsAnswered = 0;
  dnsFailed = 0;
  echoes = 0;
  icmpErrors = 0;
  publishedConnections = 0;
  /** What the allow list refused: connections, datagrams of new flows, names. */
  refused = 0;

  drop(reason: DropReason): void {
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + 1);
  }
}

/** One live flow, as `status` shows it. */
export interface FlowInfo {
  /** What it speaks. */
  readonly protocol: "tcp" | "udp";
  /** The guest opened it, or it came in by a published port. */
  readonly direction: "out" | "in";
  /** "10.0.2.15:40000". */
  readonly guest: string;
  /** As the guest sees it. */
  readonly remote: string;
  /** As TCP calls it; for people. */
  readonly state: string;
  /** Without headers. */
  readonly bytesToHost: number;
  /** Without headers. */
  readonly bytesToGuest: number;
}

/** Something that the allow list refused. */
export interface Refusal {
  /** What it spoke. */
  readonly protocol: "tcp" | "udp" | "dns";
  /** Who asked. */
  readonly guest: string;
  /** Address and port, or the name. */
  readonly to: string;
}
