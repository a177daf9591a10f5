/** Copies of files and trees between host and guest, as `cp -a` makes them: `Vm.copyIn`, `Vm.copyOut`. */
import { concatBytes } from "../image/byte-reader.js";
import { type BytesListener, sinkOfBytes, sourceOfBytes } from "./copy-bytes.js";
import type { CopyStep } from "./copy-protocol.js";
import {
  COPY_CHUNK,
  CopyRecord,
  CopyViolation,
  decodeWarning,
  encodeEntry,
  fileError,
  RecordReader,
  record,
  u64,
} from "./copy-protocol.js";
import { CopyReceiver, guestFailure } from "./copy-receiver.js";
import { COPY_MASK, CopySum } from "./copy-sum.js";
import type { SpawnListeners } from "./guest-agent.js";
import { GUEST_COPIER } from "./guest-copier.js";
import type { GuestProcess, SpawnOptions } from "./guest-process.js";
import type { GuestSocket } from "./guest-socket.js";
import type { Integration } from "./integration.js";
import { VmError } from "./vm-error.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

/** How far a copy is. */
export interface CopyProgress {
  /** Bytes of files, without holes. */
  readonly bytes: number;
  /** Of the whole copy, where it is known. */
  readonly totalBytes: number | undefined;
  /** Files, folders, links that are complete. */
  readonly files: number;
  /** What is being copied, from the copy's root. */
  readonly current: string;
}

/** How to copy. */
export interface CopyOptions extends WaitOptions {
  /** Called with each piece and each file. */
  readonly onProgress?: (progress: CopyProgress) => void;
  /** A copy out of the guest ends with an error when it comes to more. Default: what the disk holds. */
  readonly maxBytes?: number;
  /** As whom in the guest: name or number. Default: root. */
  readonly user?: string;
  /** Gets what was left out, and why: a device for one, where only root makes them. It is in the result too. */
  readonly onWarning?: (warning: CopyWarning) => void;
}

/** What was left out. */
export interface CopyWarning {
  /** Of what was left out, on the side that could not have it. */
  readonly path: string;
  /** For people. */
  readonly reason: string;
}

/** What a copy came to. */
export interface CopyResult {
  /** Of files, without holes. */
  readonly bytes: number;
  /** Files, folders and links. */
  readonly files: number;
  /** What was left out, up to 1,000. */
  readonly warnings: readonly CopyWarning[];
}

/** A host path, or the bytes of one file. */
export type CopyFrom = string | AsyncIterable<Uint8Array>;
/** A host path, or who gets the bytes of one file. */
export type CopyTo = string | BytesListener;
const hostName = (place: CopyFrom | CopyTo): string => (typeof place === "string" ? place : "a stream");

type Spawn = (command: readonly string[], o: SpawnOptions & SpawnListeners & WaitOptions) => Promise<GuestProcess>;

/** Ports of the host that copiers connect to. */
const FIRST_PORT = 0x656e_0000;
const PORTS = 0x1_0000;
/** From the end of the copier's process to the last that it said. */
const LAST_WORDS_MS = 2000;
/** A copier without a connection gets this long to tidy up. */
const GOING_MS = 2000;
const MAX_WARNINGS = 1000;
const TOKEN_BYTES = 16;
/** Small records are sent together. */
const BATCH = 64 << 10;
let nextPort = 0;

/** One copy: the copier in the guest, the connection to it, what was counted. */
class Copy {
  readonly #context: WaitContext;
  readonly #integration: Integration;
  readonly #spawn: Spawn;
  readonly #o: CopyOptions;
  #child: GuestProcess | undefined;
  #socket: GuestSocket | undefined;
  #isOver = false;
  readonly #undo: (() => void)[] = [];
  #bytes = 0;
  #files = 0;
  #totalBytes: number | undefined;
  readonly #warnings: CopyWarning[] = [];
  readonly #folders: string[] = [];
  #current = "";

  constructor(context: WaitContext, integration: Integration, spawn: Spawn, o: CopyOptions) {
    this.#context = context;
    this.#integration = integration;
    this.#spawn = spawn;
    this.#o = o;
  }
  get result(): CopyResult {
    return { bytes: this.#bytes, files: this.#files, warnings: this.#warnings };
  }
  warn(path: string, reason: string): void {
    const warning = { path, reason };
    if (this.#warnings.length < MAX_WARNINGS) this.#warnings.push(warning);
    this.#o.onWarning?.(warning);
  }
  /** Nothing of it goes on: a copier whose connection goes removes what it has half of a file; one that does not is killed. */
  close(): void {
    this.#isOver = true;
    for (const f of this.#undo.splice(0)) f();
    this.#socket?.destroy();
    const child = this.#child;
    if (this.#socket === undefined) child?.abandon();
    if (child === undefined || this.#socket === undefined) return;
    const forget = this.#context.platform.setTimer(GOING_MS, () => child.abandon());
    child.exited.then(forget, forget);
  }

  /** Starts the copier and gives the connection that it makes. */
  async #open(request: string): Promise<GuestSocket> {
    const { platform } = this.#context;
    const token = Array.from({ length: TOKEN_BYTES / 8 }, () =>
      (platform.random() >>> 0).toString(16).padStart(8, "0"),
    ).join("");
    const port = FIRST_PORT + (nextPort++ % PORTS);
    let stderr = "";
    const connected = new Promise<GuestSocket>((resolve) => {
      const accept = (socket: GuestSocket): void => {
        // anything in the guest may connect
        readToken(socket).then(
          (said) => {
            if (said === token && this.#socket === undefined && !this.#isOver) {
              this.#socket = socket;
              resolve(socket);
            } else socket.destroy();
          },
          () => socket.destroy(),
        );
      };
      this.#undo.push(this.#integration.listen(port, accept));
    });
    // the agent's own Perl, wherever it is
    this.#child = await this.#spawn(["/proc/self/exe", "-e", GUEST_COPIER], {
      env: { ENLIGHTEN_COPY_PORT: String(port), ENLIGHTEN_COPY_TOKEN: token },
      cwd: "/",
      ...(this.#o.user === undefined ? {} : { user: this.#o.user }),
      onStderr: (data) => {
        stderr = (stderr + new TextDecoder().decode(data)).slice(-1000);
      },
    });
    if (this.#isOver) this.#child.abandon();
    const ended = this.#child.exited.then(async (exit) => {
      const why = this.#child?.failure ?? (stderr.trim() || `exit code ${exit.exitCode}`);
      // what it said last may be on its way
      await new Promise<void>((resolve) => void this.#undo.push(platform.setTimer(LAST_WORDS_MS, resolve), resolve));
      throw new VmError("failed", `the copier in the guest ended: ${why}`, "is there memory left in the guest?");
    });
    ended.catch(() => {});
    this.#ended = ended;
    const socket = await Promise.race([connected, ended]);
    await socket.write(COPY_MASK);
    await socket.write(record(CopyRecord.request, new TextEncoder().encode(request)));
    return socket;
  }
  #ended: Promise<never> = new Promise(() => {});

  #count(step: CopyStep): void {
    switch (step.is) {
      case "entry": {
        const name = new TextDecoder().decode(step.entry.name);
        this.#current = [...this.#folders, name].join("/");
        if (step.entry.kind === "directory") this.#folders.push(name);
        else if (step.entry.kind !== "file") this.#files++;
        break;
      }
      case "data":
        this.#bytes += step.bytes.length;
        break;
      case "file-end":
        this.#files++;
        break;
      case "leave":
        this.#folders.pop();
        this.#files++;
        break;
      case "warning":
        this.warn(step.path, step.reason);
        return;
    }
    const { onProgress } = this.#o;
    onProgress?.({
      bytes: this.#bytes,
      totalBytes: this.#totalBytes,
      files: this.#files,
      current: this.#current,
    });
  }

  async in(from: CopyFrom, guestPath: string): Promise<CopyResult> {
    const { files, wallClockSeconds } = this.#context.platform;
    const source = typeof from === "string" ? await files.openSource(from) : sourceOfBytes(from, wallClockSeconds());
    this.#totalBytes = source.totalBytes;
    const name = new TextDecoder().decode(source.name);
    const socket = await this.#open(`in\0${guestPath}\0${name}`);
    const answer = this.#answer(new RecordReader(() => socket.read()));
    let refused = false;
    answer.catch(() => {
      refused = true;
    });
    const send = async (): Promise<void> => {
      const sum = new CopySum();
      let batch: Uint8Array[] = [];
      let size = 0;
      const flush = async (): Promise<void> => {
        const all = batch;
        batch = [];
        size = 0;
        if (all.length > 0) await socket.write(all.length === 1 ? all[0]! : concatBytes(all));
      };
      for await (const step of source.steps()) {
        if (refused || this.#isOver) return;
        const bytes = encodeStep(step, sum);
        this.#count(step);
        if (bytes === undefined) continue;
        batch.push(bytes);
        size += bytes.length;
        if (size >= BATCH) await flush();
      }
      batch.push(record(CopyRecord.end));
      await flush();
    };
    const sent = send();
    // a connection that breaks has a reason, which `answer` or the end of the process tells
    await Promise.race([answer, this.#ended, sent.catch(onlyOurs)]);
    await Promise.race([answer, this.#ended]);
    return this.result;
  }
  /** What the copier says of a copy into the guest: settles when everything is there. */
  async #answer(reader: RecordReader): Promise<void> {
    for (;;) {
      const answer = await reader.next().catch((error: unknown) => {
        if (error instanceof VmError) return undefined;
        throw error;
      });
      if (answer === undefined) return new Promise(() => {});
      if (answer.type === CopyRecord.done) return;
      if (answer.type === CopyRecord.failed) throw guestFailure(answer.payload);
      if (answer.type !== CopyRecord.warning) throw new CopyViolation("an answer of no known type");
      const { path, reason } = decodeWarning(answer.payload);
      this.warn(path, reason);
    }
  }

  async out(guestPath: string, to: CopyTo): Promise<CopyResult> {
    const name = lastName(guestPath);
    const hostPath = hostName(to);
    const sink =
      typeof to === "string"
        ? await this.#context.platform.files.openSink(to, name, (path, reason) => this.warn(path, reason))
        : sinkOfBytes(guestPath, to);
    this.#undo.push(() => sink.close());
    try {
      const socket = await this.#open(`out\0${guestPath}\0${name}`);
      const receiver = new CopyReceiver(
        new RecordReader(() =>
          // a broken connection: the end of the process says more
          socket.read().catch(() => new Promise<never>(() => {})),
        ),
      );
      const receive = async (): Promise<void> => {
        for (let isFirst = true; ; isFirst = false) {
          const step = await receiver.next();
          if (step === undefined) break;
          if (this.#isOver) return;
          if (isFirst && step.is === "entry" && step.entry.kind === "file") this.#totalBytes = step.entry.size;
          const { maxBytes = Number.POSITIVE_INFINITY } = this.#o;
          if (step.is === "data" && this.#bytes + step.bytes.length > maxBytes)
            throw fileError("no-space", hostPath, "on this host", `more than the ${maxBytes} bytes that it may take`);
          if (step.is !== "warning") await sink.take(step);
          this.#count(step);
        }
        await sink.finish();
      };
      await Promise.race([receive(), this.#ended]);
      return this.result;
    } finally {
      sink.close();
    }
  }
}

/** What could not be read here is told at once; a connection that broke is not the reason. */
async function onlyOurs(error: unknown): Promise<void> {
  if (error instanceof VmError && (error.code === "reset" || error.code === "closed")) return new Promise(() => {});
  throw error;
}

async function readToken(socket: GuestSocket): Promise<string> {
  let text = "";
  while (text.length < TOKEN_BYTES) {
    const piece = await socket.read();
    if (piece === undefined) break;
    text += new TextDecoder("latin1").decode(piece);
  }
  return text;
}

/** A step as a record; undefined for what only the host hears of. */
export function encodeStep(step: CopyStep, sum: CopySum): Uint8Array | undefined {
  switch (step.is) {
    case "entry":
      if (step.entry.kind === "file") sum.reset();
      return record(CopyRecord.entry, encodeEntry(step.entry));
    case "data":
      if (step.bytes.length > COPY_CHUNK) throw new RangeError("a chunk that is too long");
      sum.add(step.offset, step.bytes);
      return record(CopyRecord.data, u64(step.offset), step.bytes);
    case "file-end": {
      const end = new Uint8Array(16);
      end.set(u64(step.size));
      new DataView(end.buffer).setBigUint64(8, sum.value, true);
      return record(CopyRecord.fileEnd, end);
    }
    case "leave":
      return record(CopyRecord.leave);
    case "warning":
      return undefined;
  }
}

/** What a copy of the path is called in a folder; "" where its content is meant. */
export function lastName(path: string): string {
  const name = path.replace(/\/+$/, "").split("/").at(-1)!;
  return name === "." || name === ".." ? "" : name;
}

function checkPath(path: string, what: string): void {
  if (path === "" || path.includes("\0"))
    throw new VmError("bad-option", `${what} is no path: ${JSON.stringify(path)}`, "name a file or a folder");
}

/** The copies of one machine. */
export class GuestCopies {
  readonly #context: WaitContext;
  readonly #integration: Integration;
  readonly #spawn: Spawn;

  constructor(context: WaitContext, integration: Integration, spawn: Spawn) {
    this.#context = context;
    this.#integration = integration;
    this.#spawn = spawn;
  }
  #run(what: string, o: CopyOptions, run: (copy: Copy) => Promise<CopyResult>): Promise<CopyResult> {
    return waitUntil<CopyResult>(this.#context, what, o, true, (done, fail) => {
      const copy = new Copy(this.#context, this.#integration, this.#spawn, o);
      run(copy).then(done, (error: unknown) =>
        fail(
          error instanceof CopyViolation
            ? new VmError("failed", `the guest broke off the copy: ${error.message}`, "is the agent in the guest ours?")
            : (error as Error),
        ),
      );
      return () => copy.close();
    });
  }
  async in(from: CopyFrom, guestPath: string, o: CopyOptions): Promise<CopyResult> {
    checkPath(hostName(from), "the source");
    checkPath(guestPath, "the destination");
    return this.#run(`the copy of ${hostName(from)} into the guest`, o, (copy) => copy.in(from, guestPath));
  }
  async out(guestPath: string, to: CopyTo, o: CopyOptions): Promise<CopyResult> {
    checkPath(guestPath, "the source");
    checkPath(hostName(to), "the destination");
    return this.#run(`the copy of ${guestPath} out of the guest`, o, (copy) => copy.out(guestPath, to));
  }
}
