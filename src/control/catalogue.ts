/** What the frames say: every verb with its request, its answer and the notes in between, each checked on receipt. */
import {
  anything,
  flag,
  list,
  number,
  oneOf,
  optional,
  record,
  type Shape,
  type Shaped,
  table,
  text,
  whole,
} from "./shape.js";

export const PROTOCOL = "enlighten-control";
/** Counts up when an old peer would misunderstand; fields and verbs may be added without. */
export const PROTOCOL_VERSION = 1;

export const hello = record({ protocol: text, version: whole(1, 0xffff) });

/** A stream's number says what it carries. */
export const Stream = { input: 0, output: 1, error: 2 } as const;

const size = record({ rows: whole(1, 0xffff), columns: whole(1, 0xffff) });
export type Size = Shaped<typeof size>;

const noNote = record({});

/** What `ps` shows of a machine. */
export const summary = record({
  state: oneOf("starting", "running", "paused", "stopping", "ended"),
  guest: text,
  /** ms since the machine was started. */
  upMs: number,
  memoryMiB: number,
  rssBytes: number,
  /** Of one processor of the host, over the last seconds: 1 is all of it. */
  load: number,
  /** The part of the last seconds that the guest's processor was not halted. */
  guestLoad: optional(number),
  ports: list(record({ host: text, guest: text, protocol: text })),
});
export type Summary = Shaped<typeof summary>;

const channel = record({
  name: text,
  relid: whole(0, 0xffff),
  subIndex: whole(0, 0xffff),
  state: text,
  /** Of the driver in the guest with ours. */
  version: optional(text),
  inBytes: number,
  outBytes: number,
  ringBytes: number,
  packetsIn: number,
  packetsOut: number,
  problem: optional(text),
});
const command = record({
  id: text,
  command: text,
  pid: optional(number),
  sinceMs: number,
  detached: flag,
  exitCode: optional(number),
});
export type CommandStatus = Shaped<typeof command>;
export const status = record({
  summary,
  vmbusVersion: optional(text),
  channels: list(channel),
  heartbeat: optional(text),
  instructions: number,
  reboots: number,
  commands: list(command),
  /** Of the network adapter, as `Vm.network.status` has it. */
  network: anything,
  disks: list(record({ lun: number, file: text, counters: table(number) })),
  /** A machine that was started by an older program does not tell. */
  shares: optional(list(record({ directory: text, mountPoint: text, readOnly: flag }))),
  problems: list(text),
});
export type Status = Shaped<typeof status>;

const copyProgress = record({ bytes: number, totalBytes: optional(number), files: number, current: text });
export type CopyState = Shaped<typeof copyProgress>;

interface Verb {
  readonly request: Shape<unknown>;
  readonly answer: Shape<unknown>;
  /** From the client, in the midst of it. */
  readonly toServer: Shape<unknown>;
  readonly toClient: Shape<unknown>;
}
const verb = <const V extends Verb>(v: V): V => v;

export const VERBS = {
  summary: verb({ request: record({}), answer: summary, toServer: noNote, toClient: noNote }),
  status: verb({ request: record({}), answer: status, toServer: noNote, toClient: noNote }),
  /** Answered when the machine is down. */
  stop: verb({
    request: record({
      /** At once, without asking the guest. */
      force: flag,
      timeoutMs: whole(1, 2 ** 31 - 1),
    }),
    answer: record({ how: text }),
    toServer: noNote,
    toClient: noNote,
  }),
  /** Streams: input (if asked for), output, error. Answered when the command has ended, or at once if it is detached. */
  exec: verb({
    request: record({
      command: list(text),
      env: table(text),
      cwd: optional(text),
      user: optional(text),
      terminal: optional(size),
      input: flag,
      detached: flag,
      /** How long to wait for a guest that is not up yet. */
      patienceMs: whole(1, 2 ** 31 - 1),
    }),
    answer: record({ exitCode: whole(0, 0xffffffff), signal: optional(number), failure: optional(text), id: text }),
    toServer: record({ signal: optional(text), size: optional(size) }),
    toClient: record({ id: optional(text) }),
  }),
  /** Streams: input, output. It shows the last screenful first, and ends with the machine, or when it is cancelled. */
  console: verb({
    request: record({ lines: whole(0, 10_000), input: flag }),
    answer: record({ how: text }),
    toServer: record({ powerButton: optional(flag) }),
    toClient: noNote,
  }),
  /**
   * A file or a tree between the host and the guest. Files of the host are the machine's process's to open: it is the same user's.
   * Answered when everything is there. Streams, without a path of the host: input or output, the bytes of one file.
   */
  copy: verb({
    request: record({
      direction: oneOf("in", "out"),
      /** Absolute. */
      host: optional(text),
      guest: text,
      user: optional(text),
      timeoutMs: optional(whole(1, 2 ** 31 - 1)),
    }),
    answer: record({ bytes: number, files: number, warnings: number }),
    /** To abort it and be told when nothing of it goes on. */
    toServer: record({ abort: optional(flag) }),
    toClient: record({
      progress: optional(copyProgress),
      warning: optional(record({ path: text, reason: text })),
    }),
  }),
  publish: verb({
    request: record({ port: text }),
    answer: record({ host: text, guest: text, protocol: text }),
    toServer: noNote,
    toClient: noNote,
  }),
  unpublish: verb({
    request: record({ port: whole(0, 65535), protocol: oneOf("tcp", "udp") }),
    answer: record({}),
    toServer: noNote,
    toClient: noNote,
  }),
} as const;
export type VerbName = keyof typeof VERBS;
export type Request<V extends VerbName> = Shaped<(typeof VERBS)[V]["request"]>;
export type Answer<V extends VerbName> = Shaped<(typeof VERBS)[V]["answer"]>;
export type ToServer<V extends VerbName> = Shaped<(typeof VERBS)[V]["toServer"]>;
export type ToClient<V extends VerbName> = Shaped<(typeof VERBS)[V]["toClient"]>;

export const isVerb = (name: string): name is VerbName => Object.hasOwn(VERBS, name);

/** A request: its verb, and what that needs. */
export const request = record({ verb: text, body: anything });

/** What went wrong, as a VmError has it. */
export const failure = record({ code: text, message: text, hint: text, consoleTail: text });
export type Failure = Shaped<typeof failure>;
