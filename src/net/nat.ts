/**
 * The router between guests and the world, without privileges: it ends their connections in this process and goes on with sockets of
 * the platform's.
 *
 *     guest ── EthernetPort ── Nat: arp, ndp, dhcp, dhcpv6, icmp  (answered here)
 *                                   dns-relay ──── the host's name servers
 *                                   tcp-nat, udp-nat ── Backend ── sockets
 *                                   publish ◄───── sockets that listen
 *                                   what is served in this process, beside the name server (shares)
 *
 * The gateway's address leads to the host's own loopback address. Everything runs on one thread: what comes in by `receive`, by
 * the backend's events and by `runDue`. An echo (ping) is answered for the gateway and the name server; to others it cannot be sent
 * without privileges, and the guest is told that it is prohibited. Fragments are put together, packets for groups ignored.
 */
import {
  BROADCAST_IPV4,
  type Endpoint,
  formatEndpoint,
  formatIp,
  type IpAddress,
  inPrefix,
  ipv4Number,
  isLinkLocal,
  isMulticast,
  LOOPBACK_IPV4,
  LOOPBACK_IPV6,
  type MacAddress,
  parseIp,
  sameBytes,
} from "./address.js";
import { ArpOperation, parseArp, writeArp } from "./arp.js";
import type { Backend, TcpSocketEvents } from "./backend.js";
import { addBytes, checksumOf } from "./checksum.js";
import { isNowhere, type NatConfig, type Network, workOut } from "./config.js";
import { DHCP_CLIENT_PORT, DHCP_SERVER_PORT } from "./dhcp.js";
import { DhcpServer, type Lease } from "./dhcp-server.js";
import { DHCPV6_CLIENT_PORT, DHCPV6_SERVER_PORT, Dhcpv6Server, type Lease6 } from "./dhcpv6.js";
import { encodeName } from "./dns.js";
import { DnsRelay } from "./dns-relay.js";
import { IcmpType } from "./icmp.js";
import { Link, type NetClock } from "./link.js";
import { NeighborDiscovery } from "./neighbor-discovery.js";
import { type DropReason, EtherType, IpProtocol, Packet } from "./packet.js";
import { EgressPolicy } from "./policy.js";
import type { EthernetPort } from "./port.js";
import { type PublishError, type PublishedPort, Publisher, type PublishSpec } from "./publish.js";
import { Reassembler } from "./reassembly.js";
import { type FlowInfo, NatStatistics, type Refusal } from "./statistics.js";
import { type InnerSocket, TcpNat } from "./tcp-nat.js";
import { Timers } from "./timers.js";
import { UdpNat } from "./udp-nat.js";

/** What a router is made of. */
export interface NatOptions {
  /** The end of the cable to the guest, or to a switch. */
  readonly port: EthernetPort;
  readonly clock: NetClock;
  readonly backend: Backend;
  /** 32 bits by chance. */
  readonly random32: () => number;
  readonly config?: NatConfig;
  /** What is served in this process at the name server's address, by port; undefined: refused. */
  readonly service?: (port: number, guest: Endpoint, events: TcpSocketEvents) => InnerSocket | undefined;
  /** The allow list refused something. */
  readonly onRefused?: (refusal: Refusal) => void;
  /** `nextDeadline` has come nearer. */
  readonly onDeadline?: () => void;
}

/** What outlives the router: who has which address. Connections do not; guests get a reset for them. */
export interface NatState {
  readonly version: 1;
  readonly allow: readonly string[] | undefined;
  /** Times are what is left of each lease, in ns. */
  readonly leases: readonly (Omit<Lease, "address" | "expiresAt"> & {
    readonly address: string;
    readonly leftNs: number;
  })[];
  readonly leases6: readonly { readonly client: string; readonly address: string; readonly leftNs: number }[];
}

/** Frames taken from within sending others. */
const MAX_DEPTH = 4;
/** An echo is answered up to this size. */
const MAX_ECHO = 65_535 - 20;

/** The router. */
export class Nat {
  readonly network: Network;
  readonly statistics = new NatStatistics();
  readonly #link: Link;
  readonly #timers: Timers;
  readonly #onRefused: (refusal: Refusal) => void;
  readonly #tcp: TcpNat;
  readonly #udp: UdpNat;
  readonly #dhcp: DhcpServer;
  readonly #dhcpv6: Dhcpv6Server;
  readonly #ndp: NeighborDiscovery;
  readonly #dns: DnsRelay;
  readonly #publisher: Publisher;
  readonly #reassembler = new Reassembler();
  #policy: EgressPolicy;
  readonly #packets = Array.from({ length: MAX_DEPTH + 1 }, () => new Packet());
  #depth = 0;

  /** @throws NatConfigError, PolicyError */
  constructor(options: NatOptions) {
    const { port, clock, backend, random32, config = {} } = options;
    this.network = workOut(config);
    this.#onRefused = options.onRefused ?? (() => {});
    this.#timers = new Timers(options.onDeadline);
    this.#policy = new EgressPolicy(config.allow);
    const { network, statistics } = this;
    const link = new Link(network, port, clock, this.#timers, statistics, random32);
    this.#link = link;
    const domain = encodeName(network.domain) ?? Uint8Array.of(0);
    this.#tcp = new TcpNat(link, (guest, remote, events) => {
      if (this.#isDns(remote.address))
        return remote.port === 53 ? this.#dns.session(guest, events) : options.service?.(remote.port, guest, events);
      if (!this.#allowed("tcp", guest, remote)) return undefined;
      return backend.connectTcp({ address: this.#outside(remote.address), port: remote.port }, events);
    });
    this.#udp = new UdpNat(link, (guest, remote, flow) => {
      if (!this.#allowed("udp", guest, remote)) return undefined;
      return backend.connectUdp({ address: this.#outside(remote.address), port: remote.port }, flow);
    });
    this.#dhcp = new DhcpServer({
      server: network.gateway4,
      dns: network.dns4,
      first: network.firstLease,
      last: network.lastLease,
      prefixBits: network.ipv4.bits,
      mtu: network.mtu,
      domain: network.domain,
      leaseSeconds: network.leaseSeconds,
    });
    this.#dhcpv6 = new Dhcpv6Server({
      mac: network.mac,
      prefix: network.ipv6?.address ?? new Uint8Array(16),
      dns: network.dns6,
      domain,
      leaseSeconds: network.leaseSeconds,
    });
    this.#ndp = new NeighborDiscovery(link, domain);
    this.#dns = new DnsRelay({
      network,
      backend,
      timers: this.#timers,
      statistics,
      now: () => clock.now(),
      random32,
      policy: () => this.#policy,
      hosts: () => this.#dhcp.leases(clock.now()).map((l) => ({ name: l.hostName, address: l.address })),
      onRefusedName: (guest, name) => this.#onRefused({ protocol: "dns", guest: formatIp(guest), to: name }),
    });
    this.#publisher = new Publisher(network, backend, this.#tcp, this.#udp);
    link.onNeighbour = (address) => this.#tcp.neighbour(address);
    port.receive = (frame, flags, segmentSize) => this.#receive(frame, flags, segmentSize);
    port.onRoom = () => this.#tcp.room();
  }

  /** When `runDue` has something to do next, in ns; Infinity: never. */
  nextDeadline(): number {
    return this.#timers.next();
  }
  /** Does what is due. */
  runDue(now: number): void {
    this.#timers.runDue(now);
  }

  /** Makes a port of the host lead to one of a guest. */
  publish(spec: PublishSpec, done: (result: PublishedPort | PublishError) => void): void {
    this.#publisher.publish(spec, done);
  }
  /** @returns false if there is no such port */
  unpublish(id: number): boolean {
    return this.#publisher.unpublish(id);
  }
  get published(): PublishedPort[] {
    return this.#publisher.list();
  }

  /** Replaces the allow list; connections that are open stay. @throws PolicyError */
  setAllowed(list: readonly string[] | undefined): void {
    this.#policy = new EgressPolicy(list);
  }

  /** Live flows. */
  flows(): FlowInfo[] {
    return [...this.#tcp.flows(), ...this.#udp.flows()];
  }
  leases(): Lease[] {
    return this.#dhcp.leases(this.#link.clock.now());
  }
  leases6(): Lease6[] {
    return this.#dhcpv6.leases(this.#link.clock.now());
  }
  /** What the router holds now; all of it is bounded. */
  get holdings(): Readonly<Record<"tcp" | "sockets" | "udp" | "bytes" | "fragments" | "neighbours" | "dns", number>> {
    return {
      tcp: this.#tcp.count,
      sockets: this.#tcp.live,
      udp: this.#udp.count,
      bytes: this.#tcp.budget.used,
      fragments: this.#reassembler.bytes,
      neighbours: this.#link.neighbours,
      dns: this.#dns.pending,
    };
  }

  save(): NatState {
    const now = this.#link.clock.now();
    return {
      version: 1,
      allow: this.#policy.list,
      leases: this.leases().map(({ address, expiresAt, ...rest }) => ({
        ...rest,
        address: formatIp(address),
        leftNs: expiresAt - now,
      })),
      leases6: this.leases6().map(({ client, address, expiresAt }) => ({
        client,
        address: formatIp(address),
        leftNs: expiresAt - now,
      })),
    };
  }
  /** Connections of before are gone. Published ports stay as they are: they belong to the host. */
  restore(state: NatState): void {
    this.disconnect();
    const now = this.#link.clock.now();
    this.setAllowed(state.allow);
    const back = <T extends { address: string; leftNs: number }>({ address, leftNs, ...rest }: T) => ({
      ...rest,
      address: parseSaved(address),
      expiresAt: now + leftNs,
    });
    this.#dhcp.restore(state.leases.map(back));
    this.#dhcpv6.restore(state.leases6.map(back));
  }

  /**
   * Resets all connections and forgets who is where: the guest was reset.
   *
   * @param mac of one guest of several: only its connections
   */
  disconnect(mac?: MacAddress): void {
    this.#tcp.closeAll(mac);
    this.#udp.closeAll(mac);
    if (mac !== undefined) return;
    this.#dns.closeAll();
    this.#reassembler.clear();
    this.#link.forgetNeighbours();
  }
  /** Lets go of everything, published ports too. */
  close(): void {
    this.#publisher.closeAll();
    this.disconnect();
    this.#ndp.close();
    this.#link.port.receive = () => true;
    this.#link.port.onRoom = () => {};
  }

  #receive(frame: Uint8Array, flags: number, segmentSize: number): boolean {
    const { statistics } = this;
    statistics.framesIn++;
    statistics.bytesIn += frame.length;
    const p = this.#packets[this.#depth];
    if (p === undefined || this.#depth === MAX_DEPTH) {
      statistics.drop("reentered");
      return true;
    }
    this.#depth++;
    const reason = p.parse(frame, flags, segmentSize) ?? this.#dispatch(p);
    this.#depth--;
    if (reason !== undefined) statistics.drop(reason);
    return true;
  }

  #dispatch(p: Packet): DropReason | undefined {
    const { mac } = this.network;
    if (p.vlan !== 0) return "vlan";
    if ((p.bytes[p.frameAt + 6]! & 1) !== 0) return "source-address";
    if (!p.isGroup) for (let i = 0; i < 6; i++) if (p.bytes[p.frameAt + i] !== mac[i]) return "not-for-us";
    if (p.etherType === EtherType.ARP) return this.#arp(p);
    // a connection's two ends were looked at when it was opened
    if (p.protocol === IpProtocol.TCP && p.family !== 0 && !p.isFragment && !p.isGroup && this.#tcp.receive(p, false))
      return undefined;
    if (p.family === 4) return this.#ipv4(p);
    if (p.family === 16) return this.network.ipv6 === undefined ? "ether-type" : this.#ipv6(p);
    return "ether-type";
  }

  #arp(p: Packet): DropReason | undefined {
    const m = parseArp(p.bytes, p.view, p.ipAt, p.frameEnd);
    if (m === undefined) return "short";
    const { network } = this;
    const isOurs = this.#isGateway(m.senderAddress) || this.#isDns(m.senderAddress);
    const isGuest = inPrefix(m.senderAddress, network.ipv4) && !isOurs && m.senderAddress[3] !== 0;
    if (isGuest && (m.senderMac[0]! & 1) === 0) this.#link.learnAddress(m.senderAddress, m.senderMac);
    if (m.operation !== ArpOperation.REQUEST) return undefined;
    if (!sameBytes(m.targetAddress, network.gateway4) && !sameBytes(m.targetAddress, network.dns4)) return undefined;
    const f = this.#link.begin();
    if (f === undefined) return undefined;
    const length = writeArp(f, ArpOperation.REPLY, network.mac, m.targetAddress, m.senderMac, m.senderAddress);
    return this.#link.end(f, length) ? undefined : "no-room";
  }

  #ipv4(p: Packet): DropReason | undefined {
    const { network } = this;
    const { view } = p;
    if (p.protocol === IpProtocol.UDP && !p.isFragment && p.ipEnd - p.payloadAt >= 8) {
      const isDhcp = view.getUint16(p.payloadAt + 2) === DHCP_SERVER_PORT;
      if (isDhcp && (p.isGroup || sameBytes(p.destination, network.gateway4))) return this.#dhcpMessage(p);
    }
    const source = view.getUint32(p.sourceAt);
    const host = source - ipv4Number(network.ipv4.address);
    const size = 2 ** (32 - network.ipv4.bits);
    // not the network's, the broadcast, gateway's or name server's address
    if (host <= 0 || host >= size - 1 || host === 2 || host === 3) return "source-address";
    this.#link.learn(p);
    return this.#ip(p);
  }

  #ipv6(p: Packet): DropReason | undefined {
    if (p.protocol === IpProtocol.ICMPV6 && !p.isFragment && p.hopLimit === 255) {
      const handled = this.#ndp.receive(p);
      if (handled !== "no") return handled;
    }
    const source = p.source;
    if (!isLinkLocal(source) && !inPrefix(source, this.network.ipv6!)) return "source-address";
    if (this.#isGateway(source) || this.#isDns(source)) return "source-address";
    this.#link.learn(p);
    if (p.protocol === IpProtocol.UDP && !p.isFragment && p.ipEnd - p.payloadAt >= 8)
      if (p.view.getUint16(p.payloadAt + 2) === DHCPV6_SERVER_PORT) return this.#dhcpv6Message(p);
    return this.#ip(p);
  }

  /** A packet of either family whose source is right. */
  #ip(p: Packet): DropReason | undefined {
    if (p.isGroup) return "not-for-us";
    if (p.isFragment) {
      const whole = this.#reassembler.add(p, this.#link.clock.now());
      if (whole === undefined) return undefined;
      this.#receive(whole.frame, whole.flags, 0);
      return undefined;
    }
    const destination = p.destination;
    const isGateway = this.#isGateway(destination);
    if (!isGateway && !this.#isDns(destination)) {
      const isInside = inPrefix(destination, p.family === 4 ? this.network.ipv4 : this.network.ipv6!);
      if (isInside || isMulticast(destination) || isNowhere(destination)) {
        // another guest is not reached by the router; the others are no place at all
        if (isInside) this.#link.sendError(p, "no-host");
        else this.#link.sendError(p, "no-route");
        return "not-for-us";
      }
      if (p.hopLimit <= 1) {
        this.#link.sendError(p, "time-exceeded");
        return "ttl";
      }
    }
    switch (p.protocol) {
      case IpProtocol.TCP:
        this.#tcp.receive(p, true);
        return undefined;
      case IpProtocol.UDP:
        return this.#datagram(p, destination, isGateway);
      case IpProtocol.ICMP:
      case IpProtocol.ICMPV6:
        if ((p.protocol === IpProtocol.ICMP) === (p.family === 4))
          return this.#icmp(p, isGateway || this.#isDns(destination));
        break;
      case IpProtocol.NONE:
        return undefined;
    }
    this.#link.sendError(p, "protocol");
    return "protocol";
  }

  #datagram(p: Packet, destination: IpAddress, isGateway: boolean): DropReason | undefined {
    const d = this.#udp.check(p);
    if (d === undefined) return undefined; // counted there
    if (isGateway || !this.#isDns(destination)) {
      this.#udp.receive(p, d);
      return undefined;
    }
    if (d.destinationPort !== 53) {
      this.#link.sendError(p, "port");
      return "not-for-us";
    }
    const guest = { address: p.source, port: d.sourcePort };
    const mac = p.sourceMac;
    this.#dns.query(guest.address, p.bytes.subarray(d.from, d.end), false, (answer) => {
      this.#link.sendUdp(mac, { address: destination, port: 53 }, guest, answer);
    });
    return undefined;
  }

  #icmp(p: Packet, isHere: boolean): DropReason | undefined {
    const { view, bytes, family, payloadAt: at } = p;
    const length = p.ipEnd - at;
    if (length < 8) return "transport-header";
    if (family === 4) {
      if (checksumOf(addBytes(view, at, length, 0)) !== 0) return "checksum";
    } else if (!this.#ndp.checksumHolds(p)) return "checksum";
    const type = view.getUint8(at);
    const isEcho = family === 4 ? type === IcmpType.ECHO : type === 128;
    if (!isEcho) return undefined; // errors and replies are for sockets that we do not have
    if (!isHere) {
      this.#link.sendError(p, "prohibited");
      return "refused";
    }
    if (length > MAX_ECHO || length > this.network.mtu - (family === 4 ? 20 : 40)) return "too-many";
    const reply = bytes.slice(at, p.ipEnd);
    reply[0] = family === 4 ? IcmpType.ECHO_REPLY : 129;
    reply[2] = 0;
    reply[3] = 0;
    this.statistics.echoes++;
    return this.#link.sendIcmp(p.sourceMac, p.destination, p.source, reply) ? undefined : "no-room";
  }

  #dhcpMessage(p: Packet): DropReason | undefined {
    const d = this.#udp.check(p);
    if (d === undefined) return undefined;
    const reply = this.#dhcp.receive(p.bytes.subarray(d.from, d.end), this.#link.clock.now());
    if (reply === undefined) return undefined;
    const { gateway4 } = this.network;
    const to = { address: reply.to, port: DHCP_CLIENT_PORT };
    const mac = reply.mac ?? Uint8Array.of(255, 255, 255, 255, 255, 255);
    return this.#link.sendUdp(mac, { address: gateway4, port: DHCP_SERVER_PORT }, to, reply.message)
      ? undefined
      : "no-room";
  }

  #dhcpv6Message(p: Packet): DropReason | undefined {
    const d = this.#udp.check(p);
    if (d === undefined) return undefined;
    const reply = this.#dhcpv6.receive(p.bytes.subarray(d.from, d.end), this.#link.clock.now());
    if (reply === undefined) return undefined;
    const to = { address: p.source, port: DHCPV6_CLIENT_PORT };
    const from = { address: this.#link.linkLocal, port: DHCPV6_SERVER_PORT };
    return this.#link.sendUdp(p.sourceMac, from, to, reply) ? undefined : "no-room";
  }

  #isGateway(a: IpAddress): boolean {
    const { gateway4, gateway6 } = this.network;
    return a.length === 4 ? sameBytes(a, gateway4) : sameBytes(a, gateway6) || sameBytes(a, this.#link.linkLocal);
  }
  #isDns(a: IpAddress): boolean {
    return sameBytes(a, a.length === 4 ? this.network.dns4 : this.network.dns6);
  }
  /** Where a guest's connection to an address leads. */
  #outside(a: IpAddress): IpAddress {
    return this.#isGateway(a) ? (a.length === 4 ? LOOPBACK_IPV4 : LOOPBACK_IPV6) : a;
  }
  #allowed(protocol: "tcp" | "udp", guest: Endpoint, remote: Endpoint): boolean {
    const names = this.#isGateway(remote.address) ? [this.#dns.hostName] : [];
    if (this.#policy.allows(guest.address, remote.address, remote.port, this.#link.clock.now(), names)) return true;
    this.statistics.refused++;
    this.#onRefused({ protocol, guest: formatEndpoint(guest), to: formatEndpoint(remote) });
    return false;
  }
}

function parseSaved(text: string): IpAddress {
  return parseIp(text) ?? BROADCAST_IPV4;
}
