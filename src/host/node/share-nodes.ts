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
  /** When it was made, where the file system knows: an inode's number may be given out again. */
  readonly birth: bigint | undefined;
  /** None: the root. The first is the newest. */
  places: Place[];
  /** How many places are in it. */
  children: number;
  isGone: boolean;
}

const keyOf = (dev: bigint, ino: bigint): string => `${dev}:${ino}`;
/** Without a time of birth, systems give that of the last change. */
const birthOf = (s: BigIntStats): bigint | undefined => (s.birthtimeNs === s.ctimeNs ? undefined : s.birthtimeNs);

export class ShareNodes {
  readonly root: Node;
  readonly #byId = new Map<number, Node>();
  readonly #byInode = new Map<string, Node>();
  readonly #onGone: (node: Node) => void;
  #next = 2;

  constructor(root: BigIntStats, onGone: (node: Node) => void) {
    this.#onGone = onGone;
    this.root = { id: 1, dev: root.dev, ino: root.ino, birth: birthOf(root), places: [], children: 1, isGone: false };
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
    if (s.dev !== node.dev || s.ino !== node.ino) return false;
    const birth = birthOf(s);
    return node.birth === undefined || birth === undefined || birth === node.birth;
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
      node = {
        id: this.#next++,
        dev: s.dev,
        ino: s.ino,
        birth: birthOf(s),
        places: [],
        children: 0,
        isGone: false,
      };
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
  get count(): number {
    return this.#byId.size;
  }
}
