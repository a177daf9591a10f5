/** For tests: a world outside in memory, and virtual time. Nothing happens but in turns, so that every run is the same. */
import { type Endpoint, formatEndpoint, type IpAddress } from "./address.js";
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
} from "./backend.js";

/** The far end of a connection: what a server outside, or a client of a published port, holds. */
export class FarEnd {
  readonly received: Uint8Array[] = [];
  bytes = 0;
  ended = false;
  closed = false;
  wasReset = false;
  /** Takes what comes; without, it stays with the sender. */
  reading = true;
  /** The router reads. */
  flowing = true;
  paused = 0;
  keep = true;
  onData: (bytes: Uint8Array) => void = () => {};
  onEnd: () => void = () => {};
  readonly #outside: Outside;
  readonly #near: TcpSocketEvents;
  #toGuest: Uint8Array[] = [];
  #fromGuest: Uint8Array[] = [];
  #endToGuest = false;
  #endFromGuest = false;
  #told = false;
  /** The router let go of it. */
  dropped = false;

  constructor(outside: Outside, near: TcpSocketEvents) {
    this.#outside = outside;
    this.#near = near;
  }
  write(bytes: Uint8Array): void {
    this.#toGuest.push(bytes.slice());
    this.#outside.soon(() => this.#pump());
  }
  end(): void {
    this.#endToGuest = true;
    this.#outside.soon(() => this.#pump());
  }
  reset(code: BackendErrorCode = "reset"): void {
    if (this.closed) return;
    this.closed = true;
    this.#outside.soon(() => {
      if (!this.dropped) this.#near.onClose({ code, message: code });
    });
  }
  read(on: boolean): void {
    this.reading = on;
    this.#outside.soon(() => this.#pump());
  }
  get waiting(): number {
    return this.#fromGuest.reduce((n, b) => n + b.length, 0);
  }
  #pump(): void {
    while (this.flowing && !this.dropped && this.#toGuest.length > 0) this.#near.onData(this.#toGuest.shift()!);
    if (this.flowing && !this.dropped && this.#endToGuest && !this.#told && this.#toGuest.length === 0) {
      this.#told = true;
      this.#near.onEnd();
    }
    while (this.reading && this.#fromGuest.length > 0) {
      const bytes = this.#fromGuest.shift()!;
      this.bytes += bytes.length;
      if (this.keep) this.received.push(bytes);
      this.onData(bytes);
      if (!this.dropped) this.#near.onSent(bytes.length);
    }
    if (this.reading && this.#endFromGuest && !this.ended) {
      this.ended = true;
      this.onEnd();
    }
    if (this.#told && this.ended && !this.closed && !this.dropped) {
      this.closed = true;
      this.#near.onClose();
    }
  }
  /** The router's end. */
  get near(): TcpSocket {
    return {
      write: (bytes) => {
        this.#fromGuest.push(bytes.slice());
        this.#outside.soon(() => this.#pump());
      },
      end: () => {
        this.#endFromGuest = true;
        this.#outside.soon(() => this.#pump());
      },
      pause: () => {
        this.flowing = false;
        this.paused++;
      },
      resume: () => {
        this.flowing = true;
        this.#outside.soon(() => this.#pump());
      },
      destroy: (reset) => {
        this.dropped = true;
        this.wasReset = reset;
      },
    };
  }
}

/** What answers datagrams. */
export type UdpServer = (bytes: Uint8Array, reply: (bytes: Uint8Array) => void) => void;

/** The world outside. */
export class Outside implements Backend {
  dnsServers: readonly Endpoint[] = [];
  /** Servers by "address:port". */
  readonly tcp = new Map<string, (far: FarEnd) => void>();
  readonly udp = new Map<string, UdpServer>();
  readonly names = new Map<string, IpAddress[]>();
  /** What connecting to an address says; else "refused". `"silent"`: nothing. */
  readonly errors = new Map<string, BackendErrorCode | "silent">();
  readonly listening = new Map<string, (socket: IncomingTcp) => void>();
  readonly bound = new Map<string, { events: UdpSocketEvents; sent: { to: string; bytes: Uint8Array }[] }>();
  readonly connects: string[] = [];
  udpSockets = 0;
  #queue: (() => void)[] = [];

  soon(act: () => void): void {
    this.#queue.push(act);
  }
  /** @returns whether anything happened */
  turn(): boolean {
    const queue = this.#queue;
    this.#queue = [];
    for (const act of queue) act();
    return queue.length > 0;
  }

  connectTcp(to: Endpoint, events: TcpSocketEvents): TcpSocket {
    const where = formatEndpoint(to);
    this.connects.push(where);
    const far = new FarEnd(this, events);
    const server = this.tcp.get(where);
    this.soon(() => {
      if (far.dropped) return;
      const error = this.errors.get(where);
      if (error === "silent") return;
      if (server === undefined || error !== undefined) {
        const code = error ?? "refused";
        far.closed = true;
        events.onClose({ code, message: code });
        return;
      }
      events.onConnect();
      server(far);
    });
    return far.near;
  }
  listenTcp(
    at: Endpoint,
    onSocket: (socket: IncomingTcp) => void,
    onReady: (result: number | BackendError) => void,
  ): Listener {
    const port = at.port === 0 ? 40_000 + this.listening.size : at.port;
    const where = formatEndpoint({ ...at, port });
    const error = this.errors.get(where) ?? (this.listening.has(where) ? "in-use" : undefined);
    if (error !== undefined && error !== "silent") {
      this.soon(() => onReady({ code: error, message: error }));
      return { close: () => {} };
    }
    this.listening.set(where, onSocket);
    this.soon(() => onReady(port));
    return { close: () => this.listening.delete(where) };
  }
  /** Connects to a published port. @returns undefined if nothing listens or it was refused at once */
  dial(where: string): FarEnd | undefined {
    const onSocket = this.listening.get(where);
    if (onSocket === undefined) return undefined;
    let far: FarEnd | undefined;
    onSocket({
      from: { address: Uint8Array.of(127, 0, 0, 1), port: 50_000 },
      accept: (events) => {
        far = new FarEnd(this, events);
        return far.near;
      },
      refuse: () => {},
    });
    return far;
  }
  connectUdp(to: Endpoint, events: UdpSocketEvents): UdpSocket {
    const where = formatEndpoint(to);
    this.udpSockets++;
    let open = true;
    return {
      send: (bytes) => {
        const copy = bytes.slice();
        this.soon(() => {
          if (!open) return;
          const server = this.udp.get(where);
          const error = this.errors.get(where);
          if (error === "silent") return;
          if (server === undefined) events.onError({ code: error ?? "refused", message: "refused" });
          else
            server(copy, (answer) =>
              this.soon(() => {
                if (open) events.onDatagram(answer, to);
              }),
            );
        });
      },
      close: () => {
        if (open) this.udpSockets--;
        open = false;
      },
    };
  }
  bindUdp(at: Endpoint, events: UdpSocketEvents, onReady: (result: number | BackendError) => void): UdpSocket {
    const where = formatEndpoint(at);
    const error = this.errors.get(where) ?? (this.bound.has(where) ? "in-use" : undefined);
    if (error !== undefined && error !== "silent") {
      this.soon(() => onReady({ code: error, message: error }));
      return { send: () => {}, close: () => {} };
    }
    const sent: { to: string; bytes: Uint8Array }[] = [];
    this.bound.set(where, { events, sent });
    this.soon(() => onReady(at.port));
    return {
      send: (bytes, to) => void sent.push({ to: formatEndpoint(to!), bytes: bytes.slice() }),
      close: () => void this.bound.delete(where),
    };
  }
  resolve(name: string, family: 4 | 16, done: (result: IpAddress[] | BackendError) => void): void {
    this.soon(() => {
      const found = this.names.get(name);
      if (found === undefined) done({ code: "not-found", message: name });
      else done(found.filter((a) => a.length === family));
    });
  }
}

/** Something with deadlines. */
interface Timed {
  nextDeadline(): number;
  runDue(now: number): void;
}

/** Virtual time, and who lives in it. */
export class World {
  time = 1e9;
  readonly outside = new Outside();
  readonly timed: Timed[] = [];
  readonly actors: { turn(): boolean }[] = [this.outside];
  now(): number {
    return this.time;
  }
  /** Lets everybody act until nothing is left to do at this time. */
  settle(): void {
    for (let n = 0; n < 1_000_000; n++) {
      let busy = false;
      for (const actor of this.actors) busy = actor.turn() || busy;
      for (const t of this.timed)
        if (t.nextDeadline() <= this.time) {
          t.runDue(this.time);
          busy = true;
        }
      if (!busy) return;
    }
    throw new Error("the world does not come to rest");
  }
  /** Lets time go on by `ns`, or until it is so. */
  run(ns: number, until: () => boolean = () => false): boolean {
    const end = this.time + ns;
    for (;;) {
      this.settle();
      if (until()) return true;
      const next = this.timed.reduce((least, t) => Math.min(least, t.nextDeadline()), Number.POSITIVE_INFINITY);
      if (next > end) {
        this.time = end;
        this.settle();
        return until();
      }
      this.time = Math.max(this.time, next);
    }
  }
}
