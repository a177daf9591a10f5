/**
 * The sockets behind the guests' network (`net/backend.ts`), by node:net, node:dgram and node:dns. Nothing here listens by itself:
 * sockets for datagrams are connected to one peer, ports are opened only where the user publishes them.
 */
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { getServers, lookup } from "node:dns";
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { type Endpoint, formatIp, type IpAddress, parseIp } from "../../net/address.js";
import type {
  Backend,
  BackendError,
  BackendErrorCode,
  IncomingTcp,
  Listener,
  TcpSocket,
  TcpSocketEvents,
  UdpSocket,
  UdpSocketEvents,
} from "../../net/backend.js";

const CODES: Readonly<Record<string, BackendErrorCode>> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "reset",
  EPIPE: "reset",
  ETIMEDOUT: "timeout",
  ENETUNREACH: "no-route",
  EHOSTUNREACH: "no-host",
  EHOSTDOWN: "no-host",
  EACCES: "no-permission",
  EPERM: "no-permission",
  EADDRINUSE: "in-use",
  EADDRNOTAVAIL: "no-address",
  EAFNOSUPPORT: "no-route",
  EINVAL: "no-route",
  EMFILE: "too-many",
  ENFILE: "too-many",
  ENOBUFS: "too-many",
  ENOTFOUND: "not-found",
  ENODATA: "not-found",
};

function errorOf(error: Error): BackendError {
  const { code } = error as NodeJS.ErrnoException;
  return { code: CODES[code ?? ""] ?? "other", message: error.message };
}

/** Bytes are copied into slabs of this size before they are given to a socket. */
const SLAB_BYTES = 256 << 10;
/** Most bytes that are read at once. */
const READ_BYTES = 256 << 10;

/** Copies of bytes that a socket has not sent yet. A slab is left to the collector when it is full; small writes share one. */
class Slabs {
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #used = 0;
  copy(bytes: Uint8Array): Buffer {
    const n = bytes.length;
    if (n > SLAB_BYTES >> 1) return Buffer.from(bytes);
    if (this.#used + n > SLAB_BYTES) {
      this.#slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
      this.#used = 0;
    }
    const out = this.#slab.subarray(this.#used, this.#used + n);
    out.set(bytes);
    this.#used += n;
    return out;
  }
}

class NodeTcp implements TcpSocket {
  readonly #socket: Socket;
  readonly #slabs: Slabs;
  readonly #events: TcpSocketEvents;
  #dead = false;
  #error: Error | undefined;

  constructor(socket: Socket, events: TcpSocketEvents, slabs: Slabs) {
    this.#socket = socket;
    this.#slabs = slabs;
    this.#events = events;
    socket.setNoDelay(true);
    // not for sockets with a buffer of their own (`onread`)
    socket.on("data", (chunk: Buffer) => this.received(chunk));
    socket.on("end", () => {
      if (!this.#dead) events.onEnd();
    });
    socket.on("error", (error) => {
      this.#error = error;
    });
    socket.on("close", () => {
      if (this.#dead) return;
      this.#dead = true;
      events.onClose(this.#error === undefined ? undefined : errorOf(this.#error));
    });
  }
  received(chunk: Uint8Array): void {
    if (!this.#dead) this.#events.onData(chunk);
  }
  write(bytes: Uint8Array): void {
    const n = bytes.length;
    if (this.#dead || this.#socket.writableEnded) return;
    this.#socket.write(this.#slabs.copy(bytes), () => {
      if (!this.#dead) this.#events.onSent(n);
    });
  }
  end(): void {
    if (!this.#dead) this.#socket.end();
  }
  pause(): void {
    this.#socket.pause();
  }
  resume(): void {
    this.#socket.resume();
  }
  destroy(reset: boolean): void {
    if (this.#dead) return;
    this.#dead = true;
    const socket = this.#socket;
    const { writableEnded, writableFinished, writableLength } = socket;
    if (!reset || socket.connecting) socket.destroy();
    // While the end is on its way libuv refuses a reset (EINVAL), and Node takes the socket for closed: it stays, and its thread never ends.
    else if (writableEnded && !writableFinished && writableLength === 0)
      socket.once("finish", () => socket.resetAndDestroy());
    else socket.resetAndDestroy();
  }
}

class NodeUdp implements UdpSocket {
  readonly #socket: DatagramSocket;
  #waiting: Uint8Array[] | undefined = [];
  #closed = false;
  /** Could not be connected. */
  #failed = false;

  constructor(family: number, events: UdpSocketEvents) {
    this.#socket = createSocket({ type: family === 4 ? "udp4" : "udp6", reuseAddr: false });
    this.#socket.on("message", (bytes, from) => {
      const address = parseIp(from.address.replace(/%.*$/, ""));
      if (!this.#closed && address !== undefined) events.onDatagram(bytes, { address, port: from.port });
    });
    this.#socket.on("error", (error) => {
      if (!this.#closed) events.onError(errorOf(error));
    });
  }
  connect(to: Endpoint, events: UdpSocketEvents): void {
    this.#socket.connect(to.port, formatIp(to.address), (error?: Error) => {
      const waiting = this.#waiting ?? [];
      this.#waiting = undefined;
      if (this.#closed) return;
      if (error instanceof Error) {
        this.#failed = true;
        events.onError(errorOf(error));
        return;
      }
      for (const bytes of waiting) this.send(bytes);
    });
  }
  bind(at: Endpoint, onReady: (result: number | BackendError) => void): void {
    this.#waiting = undefined;
    let told = false;
    this.#socket.on("error", (error) => {
      if (!told) onReady(errorOf(error));
      told = true;
    });
    this.#socket.bind(at.port, formatIp(at.address), () => {
      told = true;
      onReady(this.#socket.address().port);
    });
  }
  send(bytes: Uint8Array, to?: Endpoint): void {
    if (this.#closed) return;
    const copy = Buffer.from(bytes);
    if (to !== undefined) {
      this.#socket.send(copy, to.port, formatIp(to.address), () => {});
      return;
    }
    if (this.#waiting !== undefined) {
      if (this.#waiting.length < 64) this.#waiting.push(copy);
      return;
    }
    if (this.#failed) return;
    this.#socket.send(copy, (error) => {
      if (error) this.#socket.emit("error", error);
    });
  }
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
  }
}

/** Where to ask for names. */
export interface NodeBackendOptions {
  /** Default: those of the host's resolver. `[]`: ask by the host's own means. */
  readonly dnsServers?: readonly Endpoint[];
}

/** The backend of Node. */
export class NodeBackend implements Backend {
  readonly dnsServers: readonly Endpoint[];
  readonly #slabs = new Slabs();
  readonly #reading = new Uint8Array(READ_BYTES);

  constructor(options: NodeBackendOptions = {}) {
    this.dnsServers = options.dnsServers ?? hostServers();
  }

  connectTcp(to: Endpoint, events: TcpSocketEvents): TcpSocket {
    let out: NodeTcp | undefined;
    const socket = netConnect({
      host: formatIp(to.address),
      port: to.port,
      allowHalfOpen: true,
      // all sockets read into one buffer: fewer and larger reads, and no memory for those that wait
      onread: {
        buffer: this.#reading,
        callback: (bytes) => {
          const chunk = Buffer.allocUnsafeSlow(bytes); // not zeroed before
          chunk.set(bytes === READ_BYTES ? this.#reading : this.#reading.subarray(0, bytes));
          out?.received(chunk);
          return true;
        },
      },
    });
    socket.on("connect", () => {
      if (!socket.destroyed) events.onConnect();
    });
    out = new NodeTcp(socket, events, this.#slabs);
    return out;
  }

  listenTcp(
    at: Endpoint,
    onSocket: (socket: IncomingTcp) => void,
    onReady: (result: number | BackendError) => void,
  ): Listener {
    const server: Server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      // until it is accepted an error is nobody's
      socket.on("error", () => {});
      onSocket({
        from: { address: parseIp(socket.remoteAddress ?? "") ?? new Uint8Array(4), port: socket.remotePort ?? 0 },
        accept: (events) => {
          const out = new NodeTcp(socket, events, this.#slabs);
          socket.resume();
          return out;
        },
        refuse: () => socket.resetAndDestroy(),
      });
    });
    let told = false;
    server.on("error", (error) => {
      // later ones are of connections that could not be accepted
      if (!told) onReady(errorOf(error));
      told = true;
    });
    server.listen({ host: formatIp(at.address), port: at.port, ipv6Only: at.address.length === 16 }, () => {
      told = true;
      const address = server.address();
      onReady(typeof address === "object" && address !== null ? address.port : at.port);
    });
    return { close: () => void server.close() };
  }

  connectUdp(to: Endpoint, events: UdpSocketEvents): UdpSocket {
    const out = new NodeUdp(to.address.length, events);
    out.connect(to, events);
    return out;
  }

  bindUdp(at: Endpoint, events: UdpSocketEvents, onReady: (result: number | BackendError) => void): UdpSocket {
    const out = new NodeUdp(at.address.length, events);
    out.bind(at, onReady);
    return out;
  }

  resolve(name: string, family: 4 | 16, done: (result: IpAddress[] | BackendError) => void): void {
    lookup(name, { family: family === 4 ? 4 : 6, all: true }, (error, addresses) => {
      if (error) done(errorOf(error));
      else done(addresses.map((a) => parseIp(a.address)).filter((a) => a !== undefined));
    });
  }
}

/** The name servers of the host. */
function hostServers(): Endpoint[] {
  const out: Endpoint[] = [];
  for (const text of getServers()) {
    const m = /^(?:\[([^\]]+)\]|([\d.]+))(?::(\d+))?$/.exec(text);
    const address = parseIp((m?.[1] ?? m?.[2] ?? text).replace(/%.*$/, ""));
    if (address !== undefined) out.push({ address, port: Number(m?.[3] ?? 53) });
  }
  return out;
}
