/**
 * What a guest knows of a shared folder: a number for each file and folder that it was shown, and where it was seen last. A number
 * stands for an inode: it stays with a file that is renamed, and with all of its names.
 */
import type { BigIntStats } from "node:fs";
import { NfsStatus, ShareError } from "../../services/files/share.js";

/** Numbers at once; the least recently used goes first, and a guest that still has it looks the file up anew. */
const MAX_NODES = 400_000;
/** Names of a file that are kept. */
const MAX_PLACES = 8;

export interface Place {
  readonly parent: Node;
  readonly name: Buffer;
}
export interface Node {
  readonly id: number;
  readonly dev: bigint;
  readonly ino: bigint;
  /** Kind of file, and when it was made: an inode's number may be given out again. */
  readonly format: bigint;
  readonly birth: bigint;
  /** None: the root. The first is the newest. */
  places: Place[];
  /** How many places are in it. */
  children: number;
  isGone: boolean;
  /** What the guest was shown of it last. */
  shown: { readonly ctime: bigint; readonly size: bigint } | undefined;
}

/** Plain data: numbers of inodes as texts. */
export interface SavedNodes {
  readonly root: string;
  readonly next: number;
  readonly nodes: readonly {
    readonly id: number;
    readonly dev: string;
    readonly ino: string;
    readonly format: number;
    readonly birth: string;
    readonly places: readonly (readonly [number, string])[];
    /** ctime in ns, and size. */
    readonly shown?: readonly [string, string];
  }[];
}

const keyOf = (dev: bigint, ino: bigint): string => `${dev}:${ino}`;
const S_IFMT = 0o170000n;

const newNode = (id: number, s: BigIntStats): Node => ({
  id,
  dev: s.dev,
  ino: s.ino,
  format: s.mode & S_IFMT,
  birth: s.birthtimeNs,
  places: [],
  children: 0,
  isGone: false,
  shown: undefined,
});
const SLASH = Buffer.from("/");
/** @param folder "" is the one at the top */
export const joined = (folder: Buffer, name: Buffer): Buffer =>
  folder.length === 0 ? name : Buffer.concat([folder, SLASH, name]);
/** A path with more names is none. */
const MAX_DEPTH = 128;

export class ShareNodes {
  readonly root: Node;
  readonly #byId = new Map<number, Node>();
  readonly #byInode = new Map<string, Node>();
  readonly #onGone: (node: Node) => void;
  #next = 2;
  #knowsBirth = false;

  constructor(root: BigIntStats, onGone: (node: Node) => void) {
    this.#onGone = onGone;
    this.root = newNode(1, root);
    this.root.children = 1;
    this.#byId.set(1, this.root);
    this.#byInode.set(keyOf(root.dev, root.ino), this.root);
  }
  /** @throws ShareError */
  get(id: number): Node {
    const node = this.#byId.get(id);
    if (node === undefined) throw new ShareError(NfsStatus.STALE);
    // the end of the map is the newest
    this.#byId.delete(id);
    this.#byId.set(id, node);
    return node;
  }
  /** Whether these are the attributes of that very file. */
  matches(node: Node, s: BigIntStats): boolean {
    if (s.dev !== node.dev || s.ino !== node.ino || (s.mode & S_IFMT) !== node.format) return false;
    // a system that does not know gives the time of the last change, and those never differ
    this.#knowsBirth ||= s.birthtimeNs !== s.ctimeNs;
    return !this.#knowsBirth || s.birthtimeNs === node.birth;
  }
  /** The node of what was found under a name. */
  found(parent: Node, name: Buffer, s: BigIntStats): Node {
    const key = keyOf(s.dev, s.ino);
    let node = this.#byInode.get(key);
    if (node !== undefined && !this.matches(node, s)) {
      this.forget(node);
      node = undefined;
    }
    if (node === undefined) {
      node = newNode(this.#next++, s);
      this.#byId.set(node.id, node);
      this.#byInode.set(key, node);
      if (this.#byId.size > MAX_NODES) this.#evict();
    }
    if (node !== this.root) this.#seen(node, parent, name, s.isDirectory());
    return node;
  }
  #seen(node: Node, parent: Node, name: Buffer, isFolder: boolean): void {
    const first = node.places[0];
    if (first !== undefined && first.parent === parent && first.name.equals(name)) return;
    this.left(node, parent, name);
    // a folder has one name only
    if (isFolder) this.#leaveAll(node);
    node.places.unshift({ parent, name: Buffer.from(name) });
    parent.children++;
    if (node.places.length > MAX_PLACES) node.places.pop()!.parent.children--;
  }
  /** It has that name no more. */
  left(node: Node, parent: Node, name: Buffer): void {
    const at = node.places.findIndex((p) => p.parent === parent && p.name.equals(name));
    if (at < 0) return;
    node.places.splice(at, 1);
    parent.children--;
  }
  #leaveAll(node: Node): void {
    for (const { parent } of node.places.splice(0)) parent.children--;
  }
  /** Under that name, as far as is known. */
  known(s: BigIntStats): Node | undefined {
    const node = this.#byInode.get(keyOf(s.dev, s.ino));
    return node !== undefined && this.matches(node, s) ? node : undefined;
  }
  forget(node: Node): void {
    if (node === this.root || node.isGone) return;
    node.isGone = true;
    this.#leaveAll(node);
    this.#byId.delete(node.id);
    if (this.#byInode.get(keyOf(node.dev, node.ino)) === node) this.#byInode.delete(keyOf(node.dev, node.ino));
    this.#onGone(node);
  }
  #evict(): void {
    for (const node of this.#byId.values()) {
      if (node.children > 0) continue;
      this.forget(node);
      return;
    }
  }
  save(): SavedNodes {
    const { dev, ino } = this.root;
    const nodes = [...this.#byId.values()].map((n) => ({
      id: n.id,
      dev: String(n.dev),
      ino: String(n.ino),
      format: Number(n.format),
      birth: String(n.birth),
      places: n.places.map(({ parent, name }) => [parent.id, name.toString("base64")] as const),
      ...(n.shown === undefined ? {} : { shown: [String(n.shown.ctime), String(n.shown.size)] as const }),
    }));
    return { root: keyOf(dev, ino), next: this.#next, nodes };
  }
  /** Whatever has changed since is found when it is looked for. */
  restore(saved: SavedNodes | undefined): void {
    this.#next = Math.max(this.#next, saved?.next ?? 0);
    if (saved === undefined || saved.root !== keyOf(this.root.dev, this.root.ino)) return;
    for (const node of [...this.#byId.values()]) this.forget(node);
    for (const n of saved.nodes) {
      const shown = n.shown === undefined ? undefined : { ctime: BigInt(n.shown[0]), size: BigInt(n.shown[1]) };
      if (n.id === this.root.id) {
        this.root.shown = shown;
        continue;
      }
      const node: Node = {
        id: n.id,
        dev: BigInt(n.dev),
        ino: BigInt(n.ino),
        format: BigInt(n.format),
        birth: BigInt(n.birth),
        places: [],
        children: 0,
        isGone: false,
        shown,
      };
      this.#byId.set(n.id, node);
      this.#byInode.set(keyOf(node.dev, node.ino), node);
    }
    for (const { id, places } of saved.nodes)
      for (const [parentId, name] of places) {
        const parent = this.#byId.get(parentId);
        if (parent === undefined) continue;
        this.#byId.get(id)!.places.push({ parent, name: Buffer.from(name, "base64") });
        parent.children++;
      }
  }
  /** All of them; which may change meanwhile. */
  all(): IterableIterator<Node> {
    return this.#byId.values();
  }
  /** Below the root ("": the root itself), by its newest name; undefined: where it is is not known. */
  pathOf(node: Node): Buffer | undefined {
    const names: Buffer[] = [];
    for (let at = node; at !== this.root; ) {
      const place = at.places[0];
      // folders that were moved about may seem to be in each other
      if (place === undefined || names.length === MAX_DEPTH) return undefined;
      names.unshift(place.name);
      at = place.parent;
    }
    return names.reduce<Buffer>(joined, Buffer.alloc(0));
  }
  get count(): number {
    return this.#byId.size;
  }
}
