/** Leases of addresses to guests: RFC 2131 "DHCP server behavior". It is the only server of its link, and says so by NAK. */
import { ANY_IPV4, BROADCAST_IPV4, formatMac, type IpAddress, ipv4Number, ipv4Of, sameBytes } from "./address.js";
import { type DhcpMessage, DhcpOption, DhcpType, encodeDhcp, parseDhcp } from "./dhcp.js";

/** What the server gives. */
export interface DhcpSettings {
  readonly server: IpAddress;
  readonly dns: IpAddress;
  readonly first: IpAddress;
  readonly last: IpAddress;
  readonly prefixBits: number;
  readonly mtu: number;
  readonly domain: string;
  readonly leaseSeconds: number;
}

/** Who has an address. */
export interface Lease {
  /** Client identifier, or link address. */
  readonly client: string;
  readonly mac: string;
  readonly address: IpAddress;
  readonly hostName: string;
  /** In ns of the router's clock. */
  readonly expiresAt: number;
  /** Only offered so far. */
  readonly isOffer: boolean;
}

/** An answer, and where it goes. */
export interface DhcpReply {
  readonly message: Uint8Array;
  readonly to: IpAddress;
  /** undefined: everybody */
  readonly mac: Uint8Array | undefined;
}

const OFFER_NS = 60e9;
/** How long an address that somebody declined is left alone. */
const DECLINED_NS = 600e9;

/** The server. */
export class DhcpServer {
  readonly #s: DhcpSettings;
  /** By address as a number. */
  readonly #leases = new Map<number, Lease>();
  readonly #declined = new Map<number, number>();

  constructor(settings: DhcpSettings) {
    this.#s = settings;
  }

  leases(now: number): Lease[] {
    return [...this.#leases.values()].filter((l) => !l.isOffer && l.expiresAt > now);
  }
  restore(leases: readonly Lease[]): void {
    this.#leases.clear();
    this.#declined.clear();
    for (const lease of leases) if (this.#inPool(lease.address)) this.#leases.set(ipv4Number(lease.address), lease);
  }

  /** @returns undefined if nothing is to be said */
  receive(bytes: Uint8Array, now: number): DhcpReply | undefined {
    const m = parseDhcp(bytes);
    if (m === undefined || m.op !== 1 || !sameBytes(m.giaddr!, ANY_IPV4)) return undefined;
    const id = m.options.get(DhcpOption.CLIENT_ID);
    const client =
      id === undefined || id.length < 2 ? `1:${formatMac(m.chaddr)}` : `${id[0]}:${formatMac(id.subarray(1))}`;
    switch (m.options.get(DhcpOption.MESSAGE_TYPE)?.[0]) {
      case DhcpType.DISCOVER:
        return this.#discover(m, client, now);
      case DhcpType.REQUEST:
        return this.#request(m, client, now);
      case DhcpType.DECLINE: {
        const address = addressIn(m, DhcpOption.REQUESTED_ADDRESS);
        if (address === undefined || this.#of(address, now)?.client !== client) return undefined;
        this.#leases.delete(ipv4Number(address));
        this.#declined.set(ipv4Number(address), now + DECLINED_NS);
        return undefined;
      }
      case DhcpType.RELEASE: {
        const lease = this.#of(m.ciaddr, now);
        // kept, so that the client gets the same again
        if (lease?.client === client) this.#put({ ...lease, expiresAt: now });
        return undefined;
      }
      case DhcpType.INFORM:
        return this.#reply(m, DhcpType.ACK, ANY_IPV4);
      default:
        return undefined;
    }
  }

  #discover(m: DhcpMessage, client: string, now: number): DhcpReply | undefined {
    const wanted = addressIn(m, DhcpOption.REQUESTED_ADDRESS);
    const address = this.#choose(client, wanted, now);
    if (address === undefined) return undefined;
    const before = this.#leases.get(ipv4Number(address));
    // a running lease is not made an offer: the client may go on with it
    if (before === undefined || before.client !== client || before.expiresAt <= now)
      this.#put(this.#lease(m, client, address, now + OFFER_NS, true));
    return this.#reply(m, DhcpType.OFFER, address);
  }

  #request(m: DhcpMessage, client: string, now: number): DhcpReply | undefined {
    const server = addressIn(m, DhcpOption.SERVER_ID);
    if (server !== undefined && !sameBytes(server, this.#s.server)) {
      // another server was chosen, wherever that may be
      for (const [key, l] of this.#leases) if (l.client === client && l.isOffer) this.#leases.delete(key);
      return undefined;
    }
    const renews = !sameBytes(m.ciaddr, ANY_IPV4);
    const address = renews ? m.ciaddr : addressIn(m, DhcpOption.REQUESTED_ADDRESS);
    if (address === undefined) return undefined;
    if (!this.#inPool(address) || !this.#isFree(address, client, now)) return this.#reply(m, DhcpType.NAK, ANY_IPV4);
    for (const [key, l] of this.#leases)
      if (l.client === client && key !== ipv4Number(address)) this.#leases.delete(key);
    this.#put(this.#lease(m, client, address, now + this.#s.leaseSeconds * 1e9, false));
    return this.#reply(m, DhcpType.ACK, address);
  }

  #lease(m: DhcpMessage, client: string, address: IpAddress, expiresAt: number, isOffer: boolean): Lease {
    const name = m.options.get(DhcpOption.HOST_NAME);
    const hostName = name === undefined ? "" : String.fromCharCode(...name.subarray(0, 63)).toLowerCase();
    return {
      client,
      mac: formatMac(m.chaddr),
      address,
      hostName: /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/.test(hostName) ? hostName : "",
      expiresAt,
      isOffer,
    };
  }
  #put(lease: Lease): void {
    this.#leases.set(ipv4Number(lease.address), lease);
  }
  #of(address: IpAddress, now: number): Lease | undefined {
    const lease = this.#leases.get(ipv4Number(address));
    return lease !== undefined && lease.expiresAt > now ? lease : undefined;
  }
  #inPool(address: IpAddress): boolean {
    const n = ipv4Number(address);
    return n >= ipv4Number(this.#s.first) && n <= ipv4Number(this.#s.last);
  }
  #isFree(address: IpAddress, client: string, now: number): boolean {
    const holder = this.#of(address, now);
    return (holder === undefined || holder.client === client) && (this.#declined.get(ipv4Number(address)) ?? 0) <= now;
  }
  /** The client's last address, the one that it wants, one that nobody ever had, one whose lease is over. */
  #choose(client: string, wanted: IpAddress | undefined, now: number): IpAddress | undefined {
    for (const lease of this.#leases.values())
      if (lease.client === client && this.#isFree(lease.address, client, now)) return lease.address;
    if (wanted !== undefined && this.#inPool(wanted) && this.#isFree(wanted, client, now)) return wanted;
    let old: IpAddress | undefined;
    for (let n = ipv4Number(this.#s.first); n <= ipv4Number(this.#s.last); n++) {
      const address = ipv4Of(n);
      if (!this.#isFree(address, client, now)) continue;
      if (!this.#leases.has(n)) return address;
      old ??= address;
    }
    return old;
  }

  #reply(m: DhcpMessage, type: number, address: IpAddress): DhcpReply {
    const s = this.#s;
    const options = new Map<number, Uint8Array>([
      [DhcpOption.MESSAGE_TYPE, Uint8Array.of(type)],
      [DhcpOption.SERVER_ID, s.server],
    ]);
    const isNak = type === DhcpType.NAK;
    if (!isNak) {
      const mask = s.prefixBits === 0 ? 0 : (-1 << (32 - s.prefixBits)) >>> 0;
      if (!sameBytes(address, ANY_IPV4)) {
        options.set(DhcpOption.LEASE_TIME, u32(s.leaseSeconds));
        options.set(DhcpOption.RENEWAL_TIME, u32(s.leaseSeconds >>> 1));
        options.set(DhcpOption.REBINDING_TIME, u32(Math.floor((s.leaseSeconds * 7) / 8)));
      }
      options.set(DhcpOption.SUBNET_MASK, u32(mask));
      options.set(DhcpOption.ROUTER, s.server);
      options.set(DhcpOption.DNS, s.dns);
      options.set(
        DhcpOption.DOMAIN,
        Uint8Array.from(s.domain, (c) => c.charCodeAt(0)),
      );
      options.set(DhcpOption.BROADCAST, u32((ipv4Number(s.server) | ~mask) >>> 0));
      options.set(DhcpOption.MTU, Uint8Array.of(s.mtu >> 8, s.mtu));
    }
    const client = m.options.get(DhcpOption.CLIENT_ID);
    if (client !== undefined) options.set(DhcpOption.CLIENT_ID, client); // RFC 6842
    const renews = !sameBytes(m.ciaddr, ANY_IPV4) && !isNak;
    const everybody = isNak || (!renews && (m.broadcast || sameBytes(address, ANY_IPV4)));
    return {
      message: encodeDhcp({
        op: 2,
        xid: m.xid,
        broadcast: m.broadcast,
        ciaddr: isNak ? ANY_IPV4 : m.ciaddr,
        yiaddr: address,
        chaddr: m.chaddr,
        options,
      }),
      to: everybody ? BROADCAST_IPV4 : renews ? m.ciaddr : address,
      mac: everybody ? undefined : m.chaddr,
    };
  }
}

function addressIn(m: DhcpMessage, option: number): IpAddress | undefined {
  const value = m.options.get(option);
  return value?.length === 4 ? value : undefined;
}
function u32(n: number): Uint8Array {
  return Uint8Array.of(n >>> 24, n >>> 16, n >>> 8, n);
}
