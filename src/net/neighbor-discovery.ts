/**
 * Neighbour and router discovery for IPv6: RFC 4861. Guests form their addresses from the prefix that is advertised (RFC 4862); the
 * gateway's addresses are defended, and answered for.
 */
import { ANY_IPV6, bytesAt, type IpAddress, inPrefix, isLinkLocal, sameBytes } from "./address.js";
import { checksumHolds } from "./header.js";
import {
  encodeNeighborAdvertisement,
  encodeRouterAdvertisement,
  Icmpv6Type,
  linkAddressOption,
  NdOption,
} from "./icmp.js";
import { type Link, multicastMac } from "./link.js";
import { type DropReason, IpProtocol, type Packet } from "./packet.js";
import { Timer } from "./timers.js";

const ALL_NODES: IpAddress = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
/** RFC 4861 "Router Configuration Variables" */
const LIFETIME_SECONDS = 1800;
const INTERVAL_NS = 600e9;

/** The router's part in it. */
export class NeighborDiscovery {
  readonly #link: Link;
  readonly #domain: Uint8Array;
  readonly #timer: Timer;

  /** @param domain encoded as a name of the DNS */
  constructor(link: Link, domain: Uint8Array) {
    this.#link = link;
    this.#domain = domain;
    this.#timer = new Timer(link.timers, () => this.#advertise(undefined, undefined));
  }

  /** @returns "no" if this is another message of ICMPv6; else why it was dropped, if it was */
  receive(p: Packet): DropReason | undefined | "no" {
    const { view, bytes, payloadAt: at, ipEnd } = p;
    if (ipEnd - at < 8) return "transport-header";
    const type = view.getUint8(at);
    if (type < Icmpv6Type.ROUTER_SOLICITATION || type > Icmpv6Type.NEIGHBOR_ADVERTISEMENT) return "no";
    if (!this.checksumHolds(p)) return "checksum";
    if (view.getUint8(at + 1) !== 0) return "transport-header";
    const source = p.source;
    const isAny = sameBytes(source, ANY_IPV6);
    if (!isAny && !this.#isGuest(source)) return "source-address";
    if (type === Icmpv6Type.ROUTER_SOLICITATION) {
      const mac = linkAddressOption(bytes, at + 8, ipEnd, NdOption.SOURCE_LINK_ADDRESS);
      if (mac === null || (isAny && mac !== undefined)) return "transport-header";
      if (!isAny) this.#link.learnAddress(source, mac ?? p.sourceMac);
      this.#advertise(isAny ? undefined : source, mac ?? p.sourceMac);
      return undefined;
    }
    if (type === Icmpv6Type.ROUTER_ADVERTISEMENT) return "not-for-us";
    if (ipEnd - at < 24) return "transport-header";
    const target = bytes.slice(at + 8, at + 24);
    if (type === Icmpv6Type.NEIGHBOR_ADVERTISEMENT) {
      const mac = linkAddressOption(bytes, at + 24, ipEnd, NdOption.TARGET_LINK_ADDRESS);
      if (mac === null || isAny) return "transport-header";
      if (this.#isGuest(target)) this.#link.learnAddress(target, mac ?? p.sourceMac);
      return undefined;
    }
    const mac = linkAddressOption(bytes, at + 24, ipEnd, NdOption.SOURCE_LINK_ADDRESS);
    if (mac === null || (isAny && mac !== undefined)) return "transport-header";
    if (!isAny) this.#link.learnAddress(source, mac ?? p.sourceMac);
    if (!this.#isOurs(target)) return undefined;
    // who asks from no address wants to take the target: RFC 4862 "Duplicate Address Detection"
    const to = isAny ? ALL_NODES : source;
    const advertisement = encodeNeighborAdvertisement(target, this.#link.network.mac, !isAny);
    const where = isAny ? multicastMac(ALL_NODES) : (mac ?? p.sourceMac);
    return this.#link.sendIcmp(where, target, to, advertisement, 255) ? undefined : "no-room";
  }

  checksumHolds(p: Packet): boolean {
    return checksumHolds(p.view, p.sourceAt, 16, IpProtocol.ICMPV6, p.payloadAt, p.ipEnd);
  }

  close(): void {
    this.#timer.cancel();
  }

  /** @param to undefined: all */
  #advertise(to: IpAddress | undefined, mac: Uint8Array | undefined): void {
    const { network, linkLocal, clock } = this.#link;
    const message = encodeRouterAdvertisement({
      mac: network.mac,
      prefix: network.ipv6!.address,
      mtu: network.mtu,
      dns: network.dns6,
      domain: this.#domain,
      lifetimeSeconds: LIFETIME_SECONDS,
    });
    const where = to === undefined || mac === undefined ? multicastMac(ALL_NODES) : mac;
    this.#link.sendIcmp(where, linkLocal, to ?? ALL_NODES, message, 255);
    this.#timer.set(clock.now() + INTERVAL_NS);
  }

  #isOurs(a: IpAddress): boolean {
    const { network, linkLocal } = this.#link;
    return bytesAt(a, 0, linkLocal) || bytesAt(a, 0, network.gateway6) || bytesAt(a, 0, network.dns6);
  }
  #isGuest(a: IpAddress): boolean {
    return (isLinkLocal(a) || inPrefix(a, this.#link.network.ipv6!)) && !this.#isOurs(a);
  }
}
