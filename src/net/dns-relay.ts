/**
 * The guests' name server: names of this network are answered here, others by the servers of the host, whose answers are passed on
 * as they are. RFC 1035; over TCP by RFC 7766 "DNS over TCP".
 */
import { type Endpoint, type IpAddress, sameBytes } from "./address.js";
import type { Backend, TcpSocket, TcpSocketEvents, UdpSocket } from "./backend.js";
import type { Network } from "./config.js";
import {
  DNS_HEADER,
  DnsCode,
  type DnsQuestion,
  DnsType,
  encodeAnswer,
  encodeName,
  parseQuestion,
  reverseName,
} from "./dns.js";
import type { EgressPolicy } from "./policy.js";
import type { NatStatistics } from "./statistics.js";
import { Timer, type Timers } from "./timers.js";

/** What the relay asks of the router. */
export interface RelayNeeds {
  readonly network: Network;
  readonly backend: Backend;
  readonly timers: Timers;
  readonly statistics: NatStatistics;
  now(): number;
  random32(): number;
  policy(): EgressPolicy;
  /** Guests by their names. */
  hosts(): Iterable<{ readonly name: string; readonly address: IpAddress }>;
  onRefusedName(guest: IpAddress, name: string): void;
}

const MAX_PENDING = 256;
const TRY_NS = 2e9;
const TCP_NS = 6e9;
const AFTER_ERROR_NS = 50e6;
const LOCAL_TTL = 60;
const MAX_MESSAGE = 65_535;

interface Pending {
  readonly guest: IpAddress;
  readonly query: Uint8Array;
  readonly question: DnsQuestion;
  readonly answer: (message: Uint8Array) => void;
  readonly timer: Timer;
  tries: number;
  upstreamId: number;
  socket: UdpSocket | undefined;
  stream: TcpSocket | undefined;
}

/** The relay. */
export class DnsRelay {
  readonly #n: RelayNeeds;
  readonly #pending = new Set<Pending>();

  constructor(needs: RelayNeeds) {
    this.#n = needs;
  }
  get pending(): number {
    return this.#pending.size;
  }
  /** What the gateway is called. */
  get hostName(): string {
    return `host.${this.#n.network.domain}`;
  }

  /**
   * Takes a query.
   *
   * @param query valid until the return
   * @param answer called once, perhaps before the return
   * @returns false if nothing will be said
   */
  query(guest: IpAddress, query: Uint8Array, overTcp: boolean, answer: (message: Uint8Array) => void): boolean {
    const { statistics } = this.#n;
    const question = parseQuestion(query);
    if (question === undefined || !question.isQuery) return false;
    statistics.dnsQueries++;
    const say = (code: number, records: readonly Uint8Array[] = [], ttl = LOCAL_TTL): void => {
      statistics.dnsAnswered++;
      answer(encodeAnswer(query, question, code, records, ttl));
    };
    if (question.opcode !== 0) {
      say(DnsCode.NOTIMP);
      return true;
    }
    const local = this.#local(question);
    if (local !== undefined) {
      say(...local);
      return true;
    }
    if (!this.#n.policy().allowsName(question.name)) {
      statistics.refused++;
      this.#n.onRefusedName(guest, question.name);
      say(DnsCode.REFUSED);
      return true;
    }
    if (this.#pending.size >= MAX_PENDING) {
      statistics.dnsFailed++;
      say(DnsCode.SERVFAIL);
      return true;
    }
    const p: Pending = {
      guest,
      query: query.slice(),
      question,
      answer,
      timer: new Timer(this.#n.timers, () => this.#late(p)),
      tries: 0,
      upstreamId: 0,
      socket: undefined,
      stream: undefined,
    };
    this.#pending.add(p);
    if (this.#n.backend.dnsServers.length === 0) this.#resolve(p);
    else if (overTcp) this.#overTcp(p);
    else this.#overUdp(p);
    return true;
  }

  /** An answer from here: code and records. */
  #local(q: DnsQuestion): [number, Uint8Array[]] | undefined {
    const { network } = this.#n;
    const isHere = q.name === network.domain || q.name.endsWith(`.${network.domain}`);
    const isReverse = q.name.endsWith(".arpa");
    if (!isHere && !isReverse) return undefined;
    const names: [string, IpAddress][] = [
      [this.hostName, network.gateway4],
      [`dns.${network.domain}`, network.dns4],
    ];
    if (network.ipv6 !== undefined) names.push([`dns.${network.domain}`, network.dns6]);
    for (const { name, address } of this.#n.hosts())
      if (name !== "") names.push([`${name}.${network.domain}`, address]);
    if (isHere) {
      const found = names.filter(([name]) => name === q.name);
      if (found.length === 0) return [q.name === network.domain ? DnsCode.NOERROR : DnsCode.NXDOMAIN, []];
      const family = q.type === DnsType.A ? 4 : q.type === DnsType.AAAA ? 16 : 0;
      return [DnsCode.NOERROR, found.map(([, a]) => a).filter((a) => a.length === family)];
    }
    if (network.ipv6 !== undefined) names.push([this.hostName, network.gateway6]);
    const found = names.find(([, address]) => reverseName(address) === q.name);
    if (found === undefined) return this.#isOurReverse(q.name) ? [DnsCode.NXDOMAIN, []] : undefined;
    return [DnsCode.NOERROR, q.type === DnsType.PTR || q.type === DnsType.ANY ? [encodeName(found[0])!] : []];
  }
  /** A reverse name in the guests' own networks, which nobody outside knows. */
  #isOurReverse(name: string): boolean {
    const { ipv4, ipv6 } = this.#n.network;
    const whole = Math.floor(ipv4.bits / 8);
    const zone4 = reverseName(ipv4.address)
      .split(".")
      .slice(4 - whole)
      .join(".");
    const zone6 = ipv6 === undefined ? "" : reverseName(ipv6.address).split(".").slice(16).join(".");
    return name.endsWith(`.${zone4}`) || (zone6 !== "" && name.endsWith(`.${zone6}`));
  }

  #overUdp(p: Pending): void {
    const servers = this.#n.backend.dnsServers;
    p.socket?.close();
    p.upstreamId = this.#n.random32() & 0xffff;
    p.timer.set(this.#n.now() + TRY_NS);
    p.socket = this.#n.backend.connectUdp(servers[p.tries % servers.length]!, {
      onDatagram: (bytes) => this.#answered(p, bytes),
      // no need to wait for a server that says that it is none
      onError: () => {
        if (this.#pending.has(p)) p.timer.set(Math.min(p.timer.when, this.#n.now() + AFTER_ERROR_NS));
      },
    });
    p.socket.send(withId(p.query, p.upstreamId));
  }

  #overTcp(p: Pending): void {
    const servers = this.#n.backend.dnsServers;
    p.stream?.destroy(true);
    p.upstreamId = this.#n.random32() & 0xffff;
    p.timer.set(this.#n.now() + TCP_NS);
    const reader = new MessageReader((message) => {
      this.#answered(p, message);
      return !this.#pending.has(p);
    });
    let live = true;
    const stream = this.#n.backend.connectTcp(servers[p.tries % servers.length]!, {
      onConnect: () => stream.write(framed(withId(p.query, p.upstreamId))),
      onData: (chunk) => reader.push(chunk),
      onEnd: () => {
        if (live && this.#pending.has(p)) this.#late(p);
      },
      onSent: () => {},
      onClose: () => {
        if (live && p.stream === stream && this.#pending.has(p)) {
          p.stream = undefined;
          live = false;
          this.#late(p);
        }
      },
    });
    p.stream = stream;
  }

  #resolve(p: Pending): void {
    const { type, name } = p.question;
    const family = type === DnsType.A ? 4 : type === DnsType.AAAA ? 16 : undefined;
    if (family === undefined || p.question.class !== 1) {
      this.#finish(p, encodeAnswer(p.query, p.question, DnsCode.NOTIMP, [], 0));
      return;
    }
    p.timer.set(this.#n.now() + TCP_NS);
    p.tries = Number.POSITIVE_INFINITY; // no second try
    this.#n.backend.resolve(name, family, (result) => {
      if (!this.#pending.has(p)) return;
      const isList = Array.isArray(result);
      const code = isList ? DnsCode.NOERROR : result.code === "not-found" ? DnsCode.NXDOMAIN : DnsCode.SERVFAIL;
      const records = isList ? result.filter((a) => a.length === family).slice(0, 32) : [];
      this.#finish(p, encodeAnswer(p.query, p.question, code, records, LOCAL_TTL));
    });
  }

  /** Takes an answer from a server if it is that of the question. */
  #answered(p: Pending, message: Uint8Array): void {
    const q = parseQuestion(message);
    if (!this.#pending.has(p) || q === undefined || q.isQuery || q.id !== p.upstreamId) return;
    if (q.name !== p.question.name || q.type !== p.question.type || q.class !== p.question.class) return;
    const answer = withId(message, p.question.id);
    // the question as the guest wrote it: some compare even upper case
    const question = p.query.subarray(DNS_HEADER, p.question.end);
    if (q.end === p.question.end && !sameBytes(answer.subarray(DNS_HEADER, q.end), question))
      answer.set(question, DNS_HEADER);
    this.#finish(p, answer);
  }
  #late(p: Pending): void {
    const servers = this.#n.backend.dnsServers.length;
    p.tries++;
    if (p.tries < Math.max(3, servers)) {
      if (p.socket !== undefined) this.#overUdp(p);
      else this.#overTcp(p);
      return;
    }
    this.#n.statistics.dnsFailed++;
    this.#finish(p, encodeAnswer(p.query, p.question, DnsCode.SERVFAIL, [], 0));
  }
  #finish(p: Pending, message: Uint8Array): void {
    this.#drop(p);
    const { ipv4, ipv6 } = this.#n.network;
    this.#n.policy().watch(p.guest, message, this.#n.now(), ipv6 === undefined ? [ipv4] : [ipv4, ipv6]);
    this.#n.statistics.dnsAnswered++;
    p.answer(message);
  }
  #drop(p: Pending): void {
    this.#pending.delete(p);
    p.timer.cancel();
    p.socket?.close();
    p.stream?.destroy(true);
  }

  closeAll(): void {
    for (const p of [...this.#pending]) this.#drop(p);
  }

  /** A guest's connection to the name server. */
  session(guest: Endpoint, events: TcpSocketEvents): TcpSocket & { start(): void } {
    let open = true;
    let waiting = 0;
    let ended = false;
    const endIfIdle = (): void => {
      if (!open || !ended || waiting > 0) return;
      open = false;
      events.onEnd();
      events.onClose();
    };
    const reader = new MessageReader((message) => {
      // no more at once than one guest may ask
      if (++waiting > 32) return true;
      const answers = this.query(guest.address, message, true, (answer) => {
        if (!open) return;
        waiting--;
        events.onData(framed(answer));
        endIfIdle();
      });
      if (!answers) waiting--;
      return false;
    });
    return {
      start: () => events.onConnect(),
      write: (bytes) => {
        if (!reader.push(bytes)) {
          open = false;
          events.onClose({ code: "reset", message: "no sense in what the guest asks" });
        } else events.onSent(bytes.length);
      },
      end: () => {
        ended = true;
        endIfIdle();
      },
      pause: () => {},
      resume: () => {},
      destroy: () => {
        open = false;
      },
    };
  }
}

/** Messages in a stream, each after its length. */
class MessageReader {
  #held = new Uint8Array(0);
  #stopped = false;
  readonly #onMessage: (message: Uint8Array) => boolean;

  /** @param onMessage returns true to stop */
  constructor(onMessage: (message: Uint8Array) => boolean) {
    this.#onMessage = onMessage;
  }
  /** @returns false once it was stopped */
  push(bytes: Uint8Array): boolean {
    if (this.#stopped) return false;
    let all = bytes;
    if (this.#held.length > 0) {
      all = new Uint8Array(this.#held.length + bytes.length);
      all.set(this.#held);
      all.set(bytes, this.#held.length);
    }
    let at = 0;
    while (at + 2 <= all.length) {
      const length = (all[at]! << 8) | all[at + 1]!;
      if (at + 2 + length > all.length) break;
      if (this.#onMessage(all.subarray(at + 2, at + 2 + length))) {
        this.#stopped = true;
        return false;
      }
      at += 2 + length;
    }
    this.#held = all.slice(at); // below 64 KiB: a message is not longer
    return true;
  }
}

function withId(message: Uint8Array, id: number): Uint8Array {
  const out = message.slice();
  out[0] = id >> 8;
  out[1] = id;
  return out;
}
function framed(message: Uint8Array): Uint8Array {
  const n = Math.min(message.length, MAX_MESSAGE);
  const out = new Uint8Array(2 + n);
  out[0] = n >> 8;
  out[1] = n;
  out.set(message.subarray(0, n), 2);
  return out;
}
