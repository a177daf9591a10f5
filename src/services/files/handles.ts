/** File handles (nfs_fh3): which share, which node. A word by chance tells handles of another run of this program apart. */
import { NfsStatus, type Share, ShareError } from "./share.js";

const SIZE = 16;
/** NFS3_FHSIZE. */
export const MAX_HANDLE = 64;

export interface At {
  readonly share: Share;
  /** Of the share, from 0. */
  readonly index: number;
  readonly node: number;
}

export class FileHandles {
  readonly #shares: readonly Share[];
  #generation: number;

  /** @param generation 32 bits by chance */
  constructor(shares: readonly Share[], generation: number) {
    this.#shares = shares;
    this.#generation = generation >>> 0;
  }
  get generation(): number {
    return this.#generation;
  }
  /** Goes on with the handles of a run before. */
  restore(generation: number): void {
    this.#generation = generation >>> 0;
  }
  /** What can be mounted: "/0", "/1", … */
  get names(): string[] {
    return this.#shares.map((_, i) => `/${i}`);
  }
  rootOf(name: string): Uint8Array | undefined {
    const index = this.names.indexOf(name);
    return index < 0 ? undefined : this.encode(index, this.#shares[index]!.root);
  }
  encode(index: number, node: number): Uint8Array {
    const bytes = new Uint8Array(SIZE);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.#generation);
    view.setUint32(4, index);
    view.setBigUint64(8, BigInt(node));
    return bytes;
  }
  /** @throws ShareError */
  decode(bytes: Uint8Array): At {
    if (bytes.length !== SIZE) throw new ShareError(NfsStatus.BADHANDLE);
    const view = new DataView(bytes.buffer, bytes.byteOffset, SIZE);
    if (view.getUint32(0) !== this.#generation) throw new ShareError(NfsStatus.STALE);
    const index = view.getUint32(4);
    const share = this.#shares[index];
    const node = view.getBigUint64(8);
    if (share === undefined || node > BigInt(Number.MAX_SAFE_INTEGER)) throw new ShareError(NfsStatus.BADHANDLE);
    return { share, index, node: Number(node) };
  }
}
