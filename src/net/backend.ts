/**
 * What the router needs of the platform that it runs on: sockets and names. A backend never calls an event from within a call of
 * its own methods; all calls come on the thread that the router runs on.
 */
import type { Endpoint, IpAddress } from "./address.js";

/** Why something outside did not work; what guests are told depends on it. */
export type BackendErrorCode =
  | "refused"
  | "reset"
  | "timeout"
  | "no-route"
  | "no-host"
  | "no-permission"
  | "in-use"
  | "no-address"
  | "too-many"
  | "not-found"
  | "other";

/** An error of the platform's. */
export interface BackendError {
  readonly code: BackendErrorCode;
  readonly message: string;
}

/** What happens to a stream socket. */
export interface TcpSocketEvents {
  /** Not for one that was accepted. */
  onConnect(): void;
  /** @param chunk the receiver's from now on */
  onData(chunk: Uint8Array): void;
  /** The other end will send no more. */
  onEnd(): void;
  /** That many bytes of what was written need no memory here any more. */
  onSent(bytes: number): void;
  /** The last event. Without an error both directions ended in order. */
  onClose(error?: BackendError): void;
}

/** A stream socket. */
export interface TcpSocket {
  /** Takes any amount; `onSent` says when it is gone. @param bytes copied before the return */
  write(bytes: Uint8Array): void;
  /** No more to write. */
  end(): void;
  /** No `onData` until `resume`. */
  pause(): void;
  resume(): void;
  /** Lets go of it, with a reset if asked for. No event comes any more. */
  destroy(reset: boolean): void;
}

/** A connection that came in. It reads nothing until it has events. */
export interface IncomingTcp {
  readonly from: Endpoint;
  accept(events: TcpSocketEvents): TcpSocket;
  refuse(): void;
}

/** Something that listens, or waits for datagrams. */
export interface Listener {
  close(): void;
}

/** What happens to a socket for datagrams. */
export interface UdpSocketEvents {
  /** @param bytes the receiver's from now on */
  onDatagram(bytes: Uint8Array, from: Endpoint): void;
  /** A datagram could not be delivered; the socket stays. */
  onError(error: BackendError): void;
}
/** A socket for datagrams. */
export interface UdpSocket {
  /** @param to of a socket that is not connected. @param bytes copied before the return */
  send(bytes: Uint8Array, to?: Endpoint): void;
  close(): void;
}

/** The platform. */
export interface Backend {
  /** Servers to ask for names; none: `resolve` is used. */
  readonly dnsServers: readonly Endpoint[];
  connectTcp(to: Endpoint, events: TcpSocketEvents): TcpSocket;
  /**
   * @param at port 0: one that is free
   * @param onReady the port, or why not
   */
  listenTcp(
    at: Endpoint,
    onSocket: (socket: IncomingTcp) => void,
    onReady: (result: number | BackendError) => void,
  ): Listener;
  /** A socket that talks to one address only. */
  connectUdp(to: Endpoint, events: UdpSocketEvents): UdpSocket;
  /** A socket that anybody may send to. */
  bindUdp(at: Endpoint, events: UdpSocketEvents, onReady: (result: number | BackendError) => void): UdpSocket;
  /** Addresses of a name by the platform's own means, of one family. */
  resolve(name: string, family: 4 | 16, done: (result: IpAddress[] | BackendError) => void): void;
}
