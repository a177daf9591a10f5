/**
 * What the host's own programs change in a share, so that its guest need not ask: folders that it was shown something of are watched,
 * and what is not as the guest was shown it is told. Watching misses some (files written by mapping, by another name, more than the
 * system queues up): all that the guest knows is looked at once in a while as well, and more often where a folder could not be watched.
 */
import { type BigIntStats, type FSWatcher, watch } from "node:fs";
import { performance } from "node:perf_hooks";
import { ShareError } from "../../services/files/share.js";
import type { Folder } from "./folder.js";
import { joined, type Node, type ShareNodes } from "./share-nodes.js";

/** The limit of all of a user's programs on older kernels (fs.inotify.max_user_watches); what is beyond is looked at. */
const MAX_WATCHED = 8192;
/** What happens together is told together; a guest that was told something just now has to look at that first. */
const TOGETHER_MS = 20;
const BUSY_MS = 200;
/** Names that wait at most. */
const MAX_WAITING = 4000;
const LOOK_EVERY_MS = 1000;
/** Each time; and where it is likely that something was not heard of. */
const LOOKS = 200;
const HURRIED_LOOKS = 2000;

const ITSELF = Buffer.from(".");

export interface ShareView {
  readonly nodes: ShareNodes;
  /** @throws when it is not there any more */
  folder(node: Node): Folder;
  /** What has the name. @throws when the folder is not there any more */
  look(folder: Folder, name: Buffer): BigIntStats | undefined;
  /** The folder itself. @throws when it is not there any more */
  lookAt(node: Node): BigIntStats;
}

/** Paths below the share's folder, those of folders before what is in them ("": the folder itself). */
export type ChangedPaths = readonly Uint8Array[];

export class ShareChanges {
  readonly #view: ShareView;
  readonly #onChanged: (paths: ChangedPaths) => void;
  readonly #maxWatched: number;
  readonly #watched = new Map<Node, FSWatcher>();
  /** The system, or we, allow no more. */
  #isFull = false;
  /** Names in folders that something has happened to, as latin1. */
  readonly #waiting = new Map<Node, Set<string>>();
  #waitingNames = 0;
  #timer: NodeJS.Timeout | undefined;
  #sentAt = Number.NEGATIVE_INFINITY;
  readonly #looking: NodeJS.Timeout;
  /** Of the round that goes through all that the guest knows. */
  #rest: Iterator<Node> | undefined;
  #isHurried = false;
  #isNextHurried = false;
  #isClosed = false;

  constructor(view: ShareView, onChanged: (paths: ChangedPaths) => void, maxWatched = MAX_WATCHED) {
    this.#view = view;
    this.#maxWatched = maxWatched;
    this.#onChanged = onChanged;
    this.#looking = setInterval(() => this.lookAround(), LOOK_EVERY_MS);
    this.#looking.unref();
  }
  get watched(): number {
    return this.#watched.size;
  }
  /** Comes before the guest is shown what is in the folder: what changes from then on is told. */
  watch(node: Node, folder: Folder): void {
    if (this.#watched.has(node)) return;
    if (!this.#isFull && this.#watched.size < this.#maxWatched)
      try {
        const watcher = watch(folder.at(ITSELF), { persistent: false, encoding: "buffer" }, (_, name) =>
          this.#happened(node, name),
        );
        watcher.on("error", () => this.forget(node));
        this.#watched.set(node, watcher);
        return;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code === "ENOSPC" || code === "EMFILE") this.#isFull = true;
      }
    this.#isNextHurried = true;
  }
  /** The guest knows nothing of it any more. */
  forget(node: Node): void {
    const watcher = this.#watched.get(node);
    if (watcher === undefined) return;
    this.#watched.delete(node);
    this.#isFull = false;
    watcher.close();
  }
  /** Much may have changed without being heard of. */
  lookSoon(): void {
    this.#isNextHurried = true;
    this.#rest = undefined;
  }
  #happened(folder: Node, name: Buffer | null): void {
    let names = this.#waiting.get(folder);
    if (names === undefined) {
      names = new Set();
      this.#waiting.set(folder, names);
    }
    const before = names.size;
    if (name !== null) this.#waitingNames += names.add(name.toString("latin1")).size - before;
    if (this.#waitingNames >= MAX_WAITING) {
      this.#tell();
      // so many at once that the system's queue may have lost some, which Node does not say
      this.lookSoon();
    } else
      this.#timer ??= setTimeout(
        () => this.#tell(),
        performance.now() - this.#sentAt < BUSY_MS ? BUSY_MS : TOGETHER_MS,
      ).unref();
  }
  #tell(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingNames = 0;
    const changed: Buffer[] = [];
    for (const [node, names] of waiting) {
      if (node.isGone) continue;
      try {
        const path = this.#view.nodes.pathOf(node);
        this.#compare(node, this.#view.lookAt(node), path, changed);
        const folder = this.#view.folder(node);
        for (const text of names) {
          const name = Buffer.from(text, "latin1");
          const s = this.#view.look(folder, name);
          const known = s === undefined ? undefined : this.#view.nodes.known(s);
          if (known !== undefined && path !== undefined) this.#compare(known, s!, joined(path, name), changed);
        }
      } catch (error) {
        // it has gone meanwhile: the folder that it was in has changed, too
        if (!isOfFiles(error)) throw error;
      }
    }
    this.#send(changed);
  }
  #compare(node: Node, s: BigIntStats, path: Buffer | undefined, changed: Buffer[]): void {
    if (path === undefined || node.shown === undefined) return;
    if (s.ctimeNs !== node.shown.ctime || s.size !== node.shown.size) changed.push(path);
  }
  #send(changed: Buffer[]): void {
    if (changed.length === 0) return;
    this.#sentAt = performance.now();
    this.#onChanged(changed.sort((a, b) => Buffer.compare(a, b)));
  }
  /** Compares some of what the guest knows with what is there. */
  lookAround(): void {
    if (this.#isClosed) return;
    const changed: Buffer[] = [];
    const isHurried = this.#isHurried || this.#isNextHurried;
    const most = Math.min(isHurried ? HURRIED_LOOKS : LOOKS, this.#view.nodes.count);
    for (let n = 0; n < most; n++) {
      if (this.#rest === undefined) {
        this.#rest = this.#view.nodes.all();
        this.#isHurried = this.#isNextHurried;
        // again, if there is a folder that cannot be watched
        this.#isNextHurried = false;
      }
      const next = this.#rest.next();
      if (next.done === true) {
        this.#rest = undefined;
        break;
      }
      const node = next.value;
      try {
        const place = node.places[0];
        if (place !== undefined) this.watch(place.parent, this.#view.folder(place.parent));
        this.#compare(node, this.#view.lookAt(node), this.#view.nodes.pathOf(node), changed);
      } catch (error) {
        // it has gone: the folder that it was in is looked at by itself
        if (!isOfFiles(error)) throw error;
      }
    }
    this.#send(changed);
  }
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#looking);
    for (const watcher of this.#watched.values()) watcher.close();
    this.#watched.clear();
  }
}

/** What the system says of files, not a mistake of ours. */
const isOfFiles = (error: unknown): boolean =>
  error instanceof ShareError || /^E[A-Z0-9]+$/.test((error as NodeJS.ErrnoException).code ?? "");
