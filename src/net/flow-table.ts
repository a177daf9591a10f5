/** Flows by their two ends, found from the bytes of a packet without making anything. */
import { bytesAt, type Endpoint, type MacAddress } from "./address.js";
import type { Packet } from "./packet.js";

/** What a flow has to have to be in a table. */
export interface Flow {
  readonly guest: Endpoint;
  /** The other end as the guest sees it. */
  readonly remote: Endpoint;
  readonly mac: MacAddress;
  /** For the table alone. */
  hash: number;
  nextInBucket: this | undefined;
}

/** The table. A seed by chance keeps guests from choosing flows that collide. */
export class FlowTable<F extends Flow> {
  readonly #buckets = new Map<number, F>();
  readonly #seed: number;
  size = 0;

  constructor(seed: number) {
    this.#seed = seed | 0;
  }

  /** The flow of a packet that comes from the guest. */
  find(p: Packet, sourcePort: number, destinationPort: number): F | undefined {
    const { view, bytes, family, sourceAt, destinationAt } = p;
    let h = Math.imul(this.#seed ^ ((sourcePort << 16) | destinationPort), 0x9e37_79b1);
    for (let i = 0; i < 2 * family; i += 4) h = mix(h, view.getInt32(sourceAt + i));
    for (let f = this.#buckets.get(h); f !== undefined; f = f.nextInBucket)
      if (
        f.guest.port === sourcePort &&
        f.remote.port === destinationPort &&
        f.guest.address.length === family &&
        bytesAt(bytes, sourceAt, f.guest.address) &&
        bytesAt(bytes, destinationAt, f.remote.address)
      )
        return f;
    return undefined;
  }

  get(guest: Endpoint, remote: Endpoint): F | undefined {
    for (let f = this.#buckets.get(this.#hash(guest, remote)); f !== undefined; f = f.nextInBucket)
      if (same(f.guest, guest) && same(f.remote, remote)) return f;
    return undefined;
  }

  add(flow: F): void {
    flow.hash = this.#hash(flow.guest, flow.remote);
    flow.nextInBucket = this.#buckets.get(flow.hash);
    this.#buckets.set(flow.hash, flow);
    this.size++;
  }

  remove(flow: F): void {
    const first = this.#buckets.get(flow.hash);
    if (first === flow) {
      if (flow.nextInBucket === undefined) this.#buckets.delete(flow.hash);
      else this.#buckets.set(flow.hash, flow.nextInBucket);
    } else {
      let before = first;
      while (before !== undefined && before.nextInBucket !== flow) before = before.nextInBucket;
      if (before === undefined) return; // not in the table
      before.nextInBucket = flow.nextInBucket;
    }
    flow.nextInBucket = undefined;
    this.size--;
  }

  *[Symbol.iterator](): Generator<F> {
    for (const first of [...this.#buckets.values()])
      for (let f: F | undefined = first; f !== undefined; ) {
        const next: F | undefined = f.nextInBucket;
        yield f;
        f = next;
      }
  }

  #hash(guest: Endpoint, remote: Endpoint): number {
    let h = Math.imul(this.#seed ^ ((guest.port << 16) | remote.port), 0x9e37_79b1);
    h = mixAddress(h, guest.address);
    return mixAddress(h, remote.address);
  }
}

function mix(h: number, word: number): number {
  const x = Math.imul(h ^ word, 0x85eb_ca6b);
  return x ^ (x >>> 15);
}
function mixAddress(hash: number, a: Uint8Array): number {
  let h = hash;
  for (let i = 0; i < a.length; i += 4) h = mix(h, (a[i]! << 24) | (a[i + 1]! << 16) | (a[i + 2]! << 8) | a[i + 3]!);
  return h;
}
function same(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.address.length === b.address.length && bytesAt(a.address, 0, b.address);
}
