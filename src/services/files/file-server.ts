/** The server: connections of a guest's NFS client, their records, and what bounds them. */
import type { TcpSocketEvents } from "../../net/backend.js";
import type { InnerSocket } from "../../net/tcp-nat.js";
import { FileHandles } from "./handles.js";
import { MOUNT_PROGRAM, MOUNT_VERSION, mountProcedure } from "./mount3.js";
import { MAX_IO, NFS_PROGRAM, NFS_VERSION, nfsProcedure } from "./nfs3.js";
import { AcceptStatus, beginReply, type Call, parseCall, RecordStream, sealed } from "./rpc.js";
import type { Share } from "./share.js";
import { XdrError } from "./xdr.js";

/** NFS_PORT; MOUNT is on it too. */
export const NFS_PORT = 2049;
/** A WRITE of the largest size, with names, credentials and handles. */
const MAX_RECORD = MAX_IO + (8 << 10);
/** Linux has one connection for all mounts, and some for a moment while it mounts. */
const MAX_SESSIONS = 8;
/** IPPORT_RESERVED: ports below are root's. */
const RESERVED_PORTS = 1024;
/** Calls whose answers wait for a disk. */
const MAX_WAITING = 64;
/** Answers that wait for a guest which does not read them; with one more, no more is read from it. */
const MAX_HELD = 2 << 20;

/** Plain data. */
export interface FileServerState {
  readonly generation: number;
  readonly shares: readonly unknown[];
}

export class FileServer {
  readonly #handles: FileHandles;
  readonly #shares: readonly Share[];
  #sessions = 0;
  /** Calls since the start. */
  calls = 0;
  /** The first mistake of our own: the guest is told that there was an error, and goes on. */
  fault: unknown;
  readonly #onFault: (error: unknown) => void;

  /** @param generation 32 bits by chance */
  constructor(shares: readonly Share[], generation: number, onFault: (error: unknown) => void = () => {}) {
    this.#onFault = onFault;
    this.#shares = shares;
    this.#handles = new FileHandles(shares, generation);
  }
  /**
   * A connection of the guest's; undefined: it is refused. Calls say themselves who makes them: only what the guest's root allows to
   * have a reserved port is believed.
   */
  session(guestPort: number, events: TcpSocketEvents): InnerSocket | undefined {
    if (this.#sessions >= MAX_SESSIONS || guestPort >= RESERVED_PORTS) return undefined;
    this.#sessions++;
    return new Session(this, events, () => {
      this.#sessions--;
    });
  }
  /** @param reply is called once, now or later; not at all for what is no call */
  answer(record: Uint8Array, reply: (bytes: Uint8Array<ArrayBuffer>) => void): Promise<void> | undefined {
    this.calls++;
    const call = parseCall(record);
    if (call === undefined) return undefined;
    if (call instanceof Uint8Array) {
      reply(call);
      return undefined;
    }
    try {
      return this.#run(call, reply);
    } catch (error) {
      const isGarbage = error instanceof XdrError;
      if (!isGarbage) this.#failed(error);
      reply(sealed(beginReply(call.xid, isGarbage ? AcceptStatus.GARBAGE_ARGS : AcceptStatus.SYSTEM_ERR)));
      return undefined;
    }
  }
  #failed(error: unknown): void {
    if (this.fault === undefined) this.#onFault(error);
    this.fault ??= error;
  }
  #run(call: Call, reply: (bytes: Uint8Array<ArrayBuffer>) => void): Promise<void> | undefined {
    const version =
      call.program === NFS_PROGRAM ? NFS_VERSION : call.program === MOUNT_PROGRAM ? MOUNT_VERSION : undefined;
    if (version === undefined) {
      reply(sealed(beginReply(call.xid, AcceptStatus.PROG_UNAVAIL)));
      return undefined;
    }
    if (call.version !== version) {
      reply(sealed(beginReply(call.xid, AcceptStatus.PROG_MISMATCH).u32(version).u32(version)));
      return undefined;
    }
    const w = beginReply(call.xid, AcceptStatus.SUCCESS);
    const status =
      call.program === MOUNT_PROGRAM ? mountProcedure(call, w, this.#handles) : nfsProcedure(call, w, this.#handles);
    if (status instanceof Promise)
      return status.then(
        () => reply(sealed(w)),
        (error: unknown) => {
          this.#failed(error);
          reply(sealed(beginReply(call.xid, AcceptStatus.SYSTEM_ERR)));
        },
      );
    reply(sealed(status === AcceptStatus.SUCCESS ? w : beginReply(call.xid, status)));
    return undefined;
  }
  save(): FileServerState {
    return { generation: this.#handles.generation, shares: this.#shares.map((share) => share.save()) };
  }
  /** The guest's handles stay good where the folders are the same. */
  restore(state: FileServerState): void {
    this.#handles.restore(state.generation);
    for (const [i, share] of this.#shares.entries()) share.restore(state.shares[i]);
  }
  close(): void {
    for (const share of this.#shares) share.close();
  }
}

/** One connection. */
class Session implements InnerSocket {
  readonly #server: FileServer;
  readonly #events: TcpSocketEvents;
  readonly #onClose: () => void;
  readonly #stream = new RecordStream(MAX_RECORD);
  #isOpen = true;
  #isPaused = false;
  #ended = false;
  #waiting = 0;
  /** Bytes that have not been looked at: too much waits already. */
  readonly #unread: Uint8Array[] = [];
  /** Of the piece that was last looked at. */
  readonly #calls: Uint8Array[] = [];
  readonly #held: Uint8Array<ArrayBuffer>[] = [];
  #heldBytes = 0;

  constructor(server: FileServer, events: TcpSocketEvents, onClose: () => void) {
    this.#server = server;
    this.#events = events;
    this.#onClose = onClose;
  }
  start(): void {
    this.#events.onConnect();
  }
  get #isBusy(): boolean {
    return this.#waiting >= MAX_WAITING || this.#heldBytes >= MAX_HELD;
  }
  write(bytes: Uint8Array): void {
    if (!this.#isOpen) return;
    // the window stays closed for what is not taken: it bounds this list
    if (this.#isBusy || this.#calls.length > 0) this.#unread.push(bytes.slice());
    else this.#take(bytes);
  }
  #take(bytes: Uint8Array): void {
    this.#events.onSent(bytes.length);
    const good = this.#stream.push(bytes, (record) => {
      if (this.#isBusy || this.#calls.length > 0) this.#calls.push(record.slice());
      else this.#answer(record);
    });
    if (!good && this.#isOpen) {
      this.#close();
      this.#events.onClose({ code: "reset", message: "no sense in what the guest asks" });
    }
  }
  #answer(record: Uint8Array): void {
    if (!this.#isOpen) return;
    const waits = this.#server.answer(record, (reply) => this.#reply(reply));
    if (waits === undefined) return;
    this.#waiting++;
    void waits.then(() => {
      this.#waiting--;
      this.#goOn();
    });
  }
  #reply(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.#isOpen) return;
    if (this.#isPaused) {
      this.#held.push(bytes);
      this.#heldBytes += bytes.length;
    } else this.#events.onData(bytes);
  }
  #goOn(): void {
    while (this.#isOpen && !this.#isBusy) {
      if (this.#calls.length > 0) this.#answer(this.#calls.shift()!);
      else if (this.#unread.length > 0) this.#take(this.#unread.shift()!);
      else break;
    }
    const rest = this.#waiting + this.#held.length + this.#unread.length + this.#calls.length;
    if (!this.#isOpen || !this.#ended || rest > 0) return;
    this.#close();
    this.#events.onEnd();
    this.#events.onClose();
  }
  end(): void {
    this.#ended = true;
    this.#goOn();
  }
  pause(): void {
    this.#isPaused = true;
  }
  resume(): void {
    this.#isPaused = false;
    while (this.#isOpen && !this.#isPaused && this.#held.length > 0) {
      const bytes = this.#held.shift()!;
      this.#heldBytes -= bytes.length;
      this.#events.onData(bytes);
    }
    this.#goOn();
  }
  destroy(): void {
    this.#close();
  }
  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#held.length = this.#unread.length = this.#calls.length = 0;
    this.#onClose();
  }
}
