/**
 * Sees a guest go through a share file by file, as `git status` and `make` do: a call for each. What comes next can then be listed ahead
 * of it, which takes a call for some hundred files (READDIRPLUS brings their attributes).
 */
import { ListingAhead } from "./share-ahead.js";
import type { Node } from "./share-nodes.js";

/** Files of a folder that were looked up one by one. */
const MANY = 12;
/** Folders that are counted at once. */
const MAX_FOLDERS = 256;
/** Two folders beside each other within this time, and those beside them are next. */
const TOGETHER_MS = 5000;
/** So many folders among the last so many calls: threads that go through one each. One alone is not faster than a listing. */
const AT_ONCE = 4;
const LAST_CALLS = 8;
/** A listing that did not come, or not where it was waited for: calls do not wait again so soon; each time for longer. */
const IN_VAIN_MS = 10_000;
const LONGEST_IN_VAIN_MS = 640_000;

export class ShareScans {
  readonly #root: Node;
  readonly #now: () => number;
  readonly #onScan: (folder: Node, from: Node | undefined) => void;
  /** Files looked up since the folder was listed; the end is the newest. */
  readonly #lookups = new Map<Node, number>();
  /** The last one that was gone through, by the folder that it is in. */
  readonly #last = new Map<Node, { readonly folder: Node; readonly at: number }>();
  /** Where the last calls looked, the oldest first. */
  readonly #recent: Node[] = [];
  #ahead: ListingAhead | undefined;
  /** Calls wait for no listing before. */
  #waitsFrom = Number.NEGATIVE_INFINITY;
  #inVainMs = IN_VAIN_MS;

  /**
   * @param now in ms
   * @param onScan a folder is gone through; or all that is below one, beginning behind the folder `from`
   */
  constructor(root: Node, now: () => number, onScan: (folder: Node, from: Node | undefined) => void) {
    this.#root = root;
    this.#now = now;
    this.#onScan = onScan;
  }
  /** Comes before something is looked up in it. @returns undefined: that is answered at once */
  wait(folder: Node): Promise<void> | undefined {
    this.#recent.push(folder);
    if (this.#recent.length > LAST_CALLS) this.#recent.shift();
    const ahead = this.#ahead;
    if (ahead === undefined) return undefined;
    if (!ahead.isOver) return ahead.wait(folder);
    if (ahead.wasInVain) {
      this.#waitsFrom = this.#now() + this.#inVainMs;
      this.#inVainMs = Math.min(this.#inVainMs * 2, LONGEST_IN_VAIN_MS);
    } else this.#inVainMs = IN_VAIN_MS;
    this.#ahead = undefined;
    return undefined;
  }
  /** Something was found in it by name. */
  lookedUp(folder: Node): void {
    const n = (this.#lookups.get(folder) ?? 0) + 1;
    this.#lookups.delete(folder);
    this.#lookups.set(folder, n);
    if (this.#lookups.size > MAX_FOLDERS) this.#lookups.delete(this.#lookups.keys().next().value!);
    if (n === MANY) this.#goneThrough(folder);
  }
  /** A call lists it, with what it would say of each file. */
  lists(folder: Node): void {
    this.#lookups.delete(folder);
    this.#ahead?.listed(folder, false);
  }
  /** The last of these calls: all of it has been listed. */
  hasListed(folder: Node): void {
    this.#ahead?.listed(folder, true);
  }
  forget(folder: Node): void {
    this.#ahead?.forget(folder);
    this.#lookups.delete(folder);
    this.#last.delete(folder);
  }
  #goneThrough(folder: Node): void {
    let at = folder;
    let from: Node | undefined;
    // two beside each other: those beside them; two of such folders: those beside these
    while (at !== this.#root) {
      const parent = at.places[0]?.parent;
      if (parent === undefined) return;
      const now = this.#now();
      const before = this.#last.get(parent);
      this.#last.delete(parent);
      this.#last.set(parent, { folder: at, at: now });
      if (this.#last.size > MAX_FOLDERS) this.#last.delete(this.#last.keys().next().value!);
      if (before === undefined || before.folder === at || now - before.at > TOGETHER_MS) break;
      from = at;
      at = parent;
    }
    this.#onScan(at, from);
    if (from !== undefined) this.#goesAhead(at);
  }
  #goesAhead(top: Node): void {
    if (new Set(this.#recent).size < AT_ONCE || this.#now() < this.#waitsFrom) return;
    if (this.#ahead?.isOver === false) {
      if (this.#ahead.covers(top)) return;
      this.#ahead.end();
    }
    this.#ahead = new ListingAhead(top, this.#now);
  }
  close(): void {
    this.#ahead?.close();
  }
}
