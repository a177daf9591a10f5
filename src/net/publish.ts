/** Ports of the host that lead to ports of guests. They listen on the loopback address unless another is asked for. */
import { type Endpoint, formatEndpoint, type IpAddress, inPrefix, LOOPBACK_IPV4, parseIp } from "./address.js";
import type { Backend, BackendError, IncomingTcp, Listener, UdpSocket } from "./backend.js";
import type { Network } from "./config.js";
import type { Published, TcpNat } from "./tcp-nat.js";
import type { UdpNat } from "./udp-nat.js";

/** What to publish. */
export interface PublishSpec {
  /** What it speaks. */
  readonly protocol: "tcp" | "udp";
  /** Default 127.0.0.1. */
  readonly hostAddress?: string;
  /** 0: one that is free. */
  readonly hostPort: number;
  /** Default: the first address that is leased. */
  readonly guestAddress?: string;
  /** 1 to 65535. */
  readonly guestPort: number;
}
/** What is published. */
export interface PublishedPort {
  /** For `unpublish`. */
  readonly id: number;
  /** What it speaks. */
  readonly protocol: "tcp" | "udp";
  /** Address and port that listen. */
  readonly host: string;
  /** 1 to 65535: the one that was taken where 0 was asked for. */
  readonly hostPort: number;
  /** Address and port in the guest, "10.0.2.15:80". */
  readonly guest: string;
  /** That are open. */
  readonly connections: number;
}
/** Why a port could not be published. */
export class PublishError extends Error {
  override readonly name = "PublishError";
  readonly code: "port-in-use" | "no-permission" | "no-address" | "bad-port" | "bad-address" | "failed";
  readonly hint: string;

  constructor(code: PublishError["code"], message: string, hint: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

const MAX_PEERS = 1024;

/**
 * Reads `[ADDRESS:]PORT:GUEST-PORT[/udp]`, as on a command line: `8080:80`, `0.0.0.0:5353:53/udp`, `[::1]:8080:80`.
 *
 * @throws PublishError
 */
export function parsePublish(text: string): PublishSpec {
  const m = /^(?:(\[[^\]]+\]|[^:]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  const [hostPort, guestPort] = [Number(m?.[2]), Number(m?.[3])];
  if (m === null || hostPort > 65_535 || guestPort > 65_535 || guestPort === 0)
    throw new PublishError("bad-port", `cannot be published: ${text}`, "write PORT:GUEST-PORT, such as 8080:80");
  const spec = { protocol: m[4] === "udp" ? "udp" : "tcp", hostPort, guestPort } as const;
  return m[1] === undefined ? spec : { ...spec, hostAddress: m[1].replace(/[[\]]/g, "") };
}

interface Rule extends Published {
  readonly id: number;
  readonly protocol: "tcp" | "udp";
  host: Endpoint;
  readonly guest: Endpoint;
  connections: number;
  listener: Listener | undefined;
  /** It listens. */
  isReady: boolean;
  closed: boolean;
}

/** All published ports. */
export class Publisher {
  readonly #network: Network;
  readonly #backend: Backend;
  readonly #tcp: TcpNat;
  readonly #udp: UdpNat;
  readonly #rules = new Map<number, Rule>();
  #nextId = 1;

  constructor(network: Network, backend: Backend, tcp: TcpNat, udp: UdpNat) {
    this.#network = network;
    this.#backend = backend;
    this.#tcp = tcp;
    this.#udp = udp;
  }

  /** @param done called once it listens, or with the reason why it does not */
  publish(spec: PublishSpec, done: (result: PublishedPort | PublishError) => void): void {
    const { hostPort, guestPort } = spec;
    const isPort = (n: number, least: number): boolean => Number.isInteger(n) && n >= least && n <= 65_535;
    if (!isPort(hostPort, 0) || !isPort(guestPort, 1)) {
      done(new PublishError("bad-port", `no such port: ${hostPort}:${guestPort}`, "ports are 1 to 65535"));
      return;
    }
    const { ipv4, ipv6, firstLease } = this.#network;
    const host = spec.hostAddress === undefined ? LOOPBACK_IPV4 : parseIp(spec.hostAddress);
    const guest = spec.guestAddress === undefined ? firstLease : parseIp(spec.guestAddress);
    const isGuest = guest !== undefined && (inPrefix(guest, ipv4) || (ipv6 !== undefined && inPrefix(guest, ipv6)));
    if (host === undefined || !isGuest) {
      const what =
        host === undefined ? `not an address: ${spec.hostAddress}` : `no guest's address: ${spec.guestAddress}`;
      done(
        new PublishError("bad-address", what, "give addresses, not names; a guest's is in the network of the guests"),
      );
      return;
    }
    const rule: Rule = {
      id: this.#nextId++,
      protocol: spec.protocol,
      host: { address: host, port: hostPort },
      guest: { address: guest, port: guestPort },
      connections: 0,
      listener: undefined,
      answered: false,
      isReady: false,
      closed: false,
    };
    this.#rules.set(rule.id, rule);
    const ready = (result: number | BackendError): void => {
      if (typeof result === "number") {
        rule.host = { address: host, port: result };
        rule.isReady = true;
        if (!rule.closed) done(info(rule));
      } else {
        this.#rules.delete(rule.id);
        done(errorOf(result, rule));
      }
    };
    if (spec.protocol === "tcp")
      rule.listener = this.#backend.listenTcp(rule.host, (socket) => this.#connection(rule, socket), ready);
    else rule.listener = this.#datagrams(rule, ready);
  }

  /** Connections that are open stay. @returns false if there is no such port */
  unpublish(id: number): boolean {
    const rule = this.#rules.get(id);
    if (rule === undefined) return false;
    this.#rules.delete(id);
    rule.closed = true;
    rule.listener?.close();
    return true;
  }
  list(): PublishedPort[] {
    return [...this.#rules.values()].filter((r) => r.isReady).map(info);
  }
  closeAll(): void {
    for (const id of [...this.#rules.keys()]) this.unpublish(id);
  }

  #gatewayFor(guest: IpAddress): IpAddress {
    return guest.length === 4 ? this.#network.gateway4 : this.#network.gateway6;
  }
  #connection(rule: Rule, incoming: IncomingTcp): void {
    rule.connections++;
    if (rule.closed || !this.#tcp.fromOutside(rule.guest, this.#gatewayFor(rule.guest.address), incoming, rule))
      incoming.refuse();
  }

  #datagrams(rule: Rule, ready: (result: number | BackendError) => void): Listener {
    // the port that stands for each peer; the one heard of longest ago goes first
    const peers = new Map<string, number>();
    const replies = new Set<UdpSocket>();
    const socket = this.#backend.bindUdp(
      rule.host,
      {
        onDatagram: (bytes, from) => {
          if (rule.closed) return;
          const name = formatEndpoint(from);
          const known = peers.get(name);
          const reply: UdpSocket = {
            send: (answer) => socket.send(answer, from),
            close: () => {
              replies.delete(reply);
            },
          };
          const port = this.#udp.fromOutside(rule.guest, this.#gatewayFor(rule.guest.address), known, bytes, reply);
          if (port === undefined) return;
          if (known !== port) {
            rule.connections++;
            replies.add(reply);
          }
          peers.delete(name);
          if (peers.size >= MAX_PEERS) peers.delete(peers.keys().next().value!);
          peers.set(name, port);
        },
        onError: () => {},
      },
      ready,
    );
    return {
      close: () => {
        this.#udp.closeOf((s) => s !== undefined && replies.has(s));
        socket.close();
      },
    };
  }
}

function info(rule: Rule): PublishedPort {
  return {
    id: rule.id,
    protocol: rule.protocol,
    host: formatEndpoint(rule.host),
    hostPort: rule.host.port,
    guest: formatEndpoint(rule.guest),
    connections: rule.connections,
  };
}
function errorOf(error: BackendError, rule: Rule): PublishError {
  const where = formatEndpoint(rule.host);
  if (error.code === "in-use")
    return new PublishError("port-in-use", `${where} is in use`, "choose another port, or 0 for one that is free");
  if (error.code === "no-permission")
    return new PublishError("no-permission", `not allowed to listen on ${where}`, "choose a port from 1024 on");
  if (error.code === "no-address")
    return new PublishError("no-address", `${where} is not an address of this host`, "choose 127.0.0.1 or 0.0.0.0");
  return new PublishError("failed", `cannot listen on ${where}: ${error.message}`, "choose another port");
}
