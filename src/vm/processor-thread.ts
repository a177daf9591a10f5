/**
 * What runs on the processor's thread: makes the partition, steps it, sleeps in Atomics.wait while it is halted, moves serial
 * output out and input in. It never awaits. The platform's worker file gives it a port, a clock and entropy.
 */
import type { SerialSink } from "../chipset/chipset.js";
import { disassemble } from "../cpu/decode/disassemble.js";
import { Stat } from "../cpu/layout.js";
import type { GuestCrash } from "../hypervisor/hypervisor.js";
import type { Clock, Entropy } from "../machine/device.js";
import { TraceRing } from "../trace/trace.js";
import { CpuLimit } from "./cpu-limit.js";
import type { SerialNumber } from "./machine-spec.js";
import {
  Control,
  type EndKind,
  type FromProcessor,
  MAX_OUTSTANDING,
  type ProcessorStart,
  type ProcessorStats,
  type TimeBase,
  type ToProcessor,
} from "./messages.js";
import { Partition, type PartitionOptions } from "./partition.js";

export interface ThreadPort {
  post(message: FromProcessor, transfer: readonly ArrayBuffer[]): void;
  /** The next message, at once. */
  receive(): ToProcessor | undefined;
}

/** Instructions between two looks at clock and deadlines, and the time that it is to take: a look costs some us itself. */
const SHORTEST_SLICE = 20_000;
const LONGEST_SLICE = 400_000;
const SLICE_NS = 200_000;
const OUTPUT_BUFFER = 1 << 16;
/** Output waits this long at most for more to go with it. */
const FLUSH_NS = 5e6;
/** An idle machine without any deadline still looks for mail this often; a wake-up comes at once. */
const LONGEST_SLEEP_MS = 10_000;

/** Collects a serial port's output for one message. */
class OutputBuffer {
  readonly serial: SerialNumber;
  #bytes = new Uint8Array(256);
  length = 0;
  constructor(serial: SerialNumber) {
    this.serial = serial;
  }
  push(byte: number): void {
    if (this.length === this.#bytes.length) {
      const bigger = new Uint8Array(this.#bytes.length * 2);
      bigger.set(this.#bytes);
      this.#bytes = bigger;
    }
    this.#bytes[this.length++] = byte;
  }
  take(): Uint8Array<ArrayBuffer> {
    const out = this.#bytes.slice(0, this.length);
    this.length = 0;
    return out;
  }
}

/** The machine with its input queues and output buffers; both schedulers drive one. */
export class ProcessorThread {
  readonly partition: Partition;
  readonly #port: ThreadPort;
  readonly #control: Int32Array;
  readonly #clock: Clock;
  readonly #outputs = ([0, 1, 2, 3] as const).map((n) => new OutputBuffer(n));
  readonly #inputs: Uint8Array[][] = [[], [], [], []];
  #oldestOutputNs = 0;
  #mailSeen = 0;
  #stopAsked = false;
  #debugExit: number | undefined;
  ended = false;
  readonly #traced: boolean;
  #trace = "";

  readonly trace: TraceRing;
  readonly #sendsTrace: boolean;
  readonly #rebase: (time: TimeBase) => void;
  /** Stands still until it is told to go on. */
  paused = false;

  /**
   * @param rebase moves the clock after a pause
   * @param regionCompiler who compiles hot code (default: this thread)
   */
  constructor(
    start: ProcessorStart,
    port: ThreadPort,
    clock: Clock,
    entropy: Entropy,
    rebase: (time: TimeBase) => void,
    regionCompiler?: PartitionOptions["regionCompiler"],
  ) {
    this.#rebase = rebase;
    this.trace = new TraceRing(() => clock.now());
    this.#sendsTrace = start.spec.trace;
    if (start.spec.trace) this.trace.onFull = () => this.#sendRecords();
    this.#port = port;
    this.#control = start.control;
    this.#clock = clock;
    const { spec } = start;
    this.#traced = spec.traceCpu;
    const serial = this.#outputs.map(
      (out): SerialSink => ({
        onOutput: (byte) => {
          if (out.length === 0) this.#oldestOutputNs = clock.now();
          out.push(byte);
          if (out.length >= OUTPUT_BUFFER) this.flushOutput();
        },
        onInputSpace: () => this.#feed(out.serial),
      }),
    ) as unknown as readonly [SerialSink, SerialSink, SerialSink, SerialSink];
    this.partition = new Partition({
      ramBytes: spec.ramBytes,
      features: new Set(spec.features),
      modules: {
        runtime: new WebAssembly.Module(start.engine.runtime),
        interpreter: new WebAssembly.Module(start.engine.interpreter),
      },
      shared: true,
      strictFloat: spec.strictFloat,
      regions: spec.regions,
      ...(regionCompiler === undefined ? {} : { regionCompiler }),
      clock,
      entropy,
      wallClockSeconds: start.wallClockSeconds,
      serial,
      trace: this.trace,
      ...(spec.hypervisor
        ? {
            hypervisor: {
              onCrash: ({ parameters, text }: GuestCrash) => {
                this.flushOutput();
                port.post({ type: "crash", parameters, text }, []);
              },
            },
          }
        : {}),
      ...(spec.debugExit
        ? {
            onDebugExit: (code: number) => {
              this.#debugExit = code;
              this.partition.wake();
            },
          }
        : {}),
    });
    if (spec.saved !== undefined) this.partition.restore(spec.saved);
    else if (spec.boot !== undefined) this.partition.load(spec.boot);
    const { words, pendingWord } = this.partition.vp;
    port.post({ type: "started", memory: words.buffer as SharedArrayBuffer, pendingWord }, []);
  }

  /** ns of virtual time. */
  now(): number {
    return this.#clock.now();
  }
  stats(): ProcessorStats {
    const { vp } = this.partition;
    const counters: Record<string, number> = {};
    for (const name of Object.keys(Stat) as (keyof typeof Stat)[]) counters[name] = vp.stat(name);
    for (const [name, n] of Object.entries(vp.regions?.counters ?? {})) counters[`regions ${name}`] = n;
    counters.portReads = this.partition.ports.counters.reads;
    counters.portWrites = this.partition.ports.counters.writes;
    return { instructions: vp.retired, timeNs: this.#clock.now(), haltedNs: this.#haltedNs, counters };
  }

  /** Sleeps until the word is no longer `value`, or the time is up. */
  sleep(words: Int32Array, index: number, value: number, ms: number): void {
    const since = this.#clock.now();
    Atomics.wait(words, index, value, ms);
    this.#haltedNs += this.#clock.now() - since;
  }
  #haltedNs = 0;

  flushOutput(): void {
    for (const out of this.#outputs) {
      if (out.length === 0) continue;
      const bytes = out.take();
      Atomics.add(this.#control, Control.outstanding, bytes.length);
      this.#port.post({ type: "output", serial: out.serial, bytes }, [bytes.buffer]);
    }
  }
  /** Whether output waits for long enough. */
  #outputDue(): boolean {
    return this.#outputs.some((o) => o.length > 0) && this.#clock.now() - this.#oldestOutputNs >= FLUSH_NS;
  }
  get outputBlocked(): boolean {
    return Atomics.load(this.#control, Control.outstanding) > MAX_OUTSTANDING;
  }

  #feed(serial: SerialNumber): void {
    const queue = this.#inputs[serial]!;
    for (;;) {
      const first = queue[0];
      if (first === undefined) return;
      const taken = this.partition.chipset.serial[serial]!.receive(first);
      if (taken === first.length) queue.shift();
      else {
        queue[0] = first.subarray(taken);
        return;
      }
    }
  }
  get hasMail(): boolean {
    return Atomics.load(this.#control, Control.mail) !== this.#mailSeen;
  }
  readMail(): void {
    const mail = Atomics.load(this.#control, Control.mail);
    if (mail === this.#mailSeen) return;
    this.#mailSeen = mail;
    for (let m = this.#port.receive(); m !== undefined; m = this.#port.receive()) {
      switch (m.type) {
        case "input":
          this.#inputs[m.serial]!.push(m.bytes);
          this.#feed(m.serial);
          break;
        case "power-button":
          this.partition.chipset.pm.pressPowerButton();
          break;
        case "nmi":
          this.partition.injectNmi();
          break;
        case "stats":
          this.#port.post({ type: "stats", stats: this.stats() }, []);
          break;
        case "save":
          this.#port.post({ type: "saved", state: this.partition.save() }, []);
          break;
        case "stop":
          this.#stopAsked = true;
          break;
        case "pause":
          this.paused = true;
          this.flushOutput();
          this.#port.post({ type: "paused", timeNs: this.#clock.now() }, []);
          break;
        case "resume":
          this.paused = false;
          this.#rebase(m.time);
          break;
        case "trace":
          this.postLastRecords();
          break;
      }
    }
  }
  /** What happened last, for a report. */
  postLastRecords(): void {
    this.#port.post({ type: "records", records: this.trace.last(), last: true }, []);
  }
  #sendRecords(): void {
    const records = this.trace.take();
    if (records.length > 0) this.#port.post({ type: "records", records, last: false }, []);
  }
  /** One instruction, with a line that says where and what it is. */
  #traceStep(): ReturnType<Partition["step"]> {
    const { vp, halted } = this.partition;
    if (!halted) {
      const found = this.partition.codeAtRip();
      const rip = vp.rip;
      const { text, length } =
        found === undefined ? { text: "(fetch faults)", length: 0 } : disassemble(found.bytes, found.code, rip);
      const bytes =
        found === undefined
          ? ""
          : Array.from(found.bytes.subarray(0, length), (b) => b.toString(16).padStart(2, "0")).join("");
      this.#trace += `${vp.retired} ${rip.toString(16).padStart(16, "0")} ${bytes.padEnd(20)} ${text}\n`;
      if (this.#trace.length > OUTPUT_BUFFER) this.#flushTrace();
    }
    return this.partition.stepOne();
  }
  #flushTrace(): void {
    if (this.#trace === "") return;
    Atomics.add(this.#control, Control.outstanding, this.#trace.length);
    this.#port.post({ type: "trace", text: this.#trace }, []);
    this.#trace = "";
  }
  end(how: EndKind, detail: string): void {
    if (this.ended) return;
    this.ended = true;
    this.partition.hypervisor?.stop();
    this.#flushTrace();
    if (this.#sendsTrace) this.#sendRecords();
    if (how === "triple-fault" || how === "deadlock") this.postLastRecords();
    this.flushOutput();
    this.#port.post({ type: "ended", how, detail, stats: this.stats() }, []);
  }

  /**
   * One slice. @returns how long nothing can happen: ns of virtual time, 0 = go on at once
   */
  slice(budget: number): number {
    this.readMail();
    if (this.#stopAsked) {
      this.end("stopped", "");
      return 0;
    }
    if (this.paused) return Number.POSITIVE_INFINITY;
    const result = this.#traced ? this.#traceStep() : this.partition.step(budget);
    if (this.#debugExit !== undefined) {
      this.end("debug-exit", String(this.#debugExit));
      return 0;
    }
    switch (result) {
      case "running":
        if (this.#outputDue()) this.flushOutput();
        return 0;
      case "halted": {
        this.flushOutput();
        if (this.#sendsTrace) this.#sendRecords();
        const next = this.partition.deadlines.earliest();
        return Math.max(0, next - this.#clock.now());
      }
      case "triple-fault":
        this.end("triple-fault", this.partition.describe());
        return 0;
      default:
        this.end(result, "");
        return 0;
    }
  }
}

/**
 * Instructions of the next slice. It grows and shrinks by halves at most: interpreted and compiled code differ tenfold.
 *
 * @param last instructions of the last one
 * @param done those that a slice has run in `ns`
 */
export function nextSlice(last: number, done: number, ns: number): number {
  const fits = ns > 0 ? (done * SLICE_NS) / ns : LONGEST_SLICE;
  const near = Math.min(Math.max(fits, last / 2), last * 1.5);
  return Math.round(Math.min(Math.max(near, SHORTEST_SLICE), LONGEST_SLICE));
}

/** Nobody ever writes to it. */
const RESTING = new Int32Array(new SharedArrayBuffer(4));

/** Sleeps off what has been run too much: no sleep of the guest's, so nothing wakes it. @returns ns that it took */
function rest(thread: ProcessorThread, ns: number): number {
  if (ns === 0) return 0;
  const since = thread.now();
  Atomics.wait(RESTING, 0, 0, ns / 1e6);
  return thread.now() - since;
}

/** The parallel scheduler's loop for one processor. Returns when the machine has ended. */
export function runProcessor(thread: ProcessorThread, control: Int32Array, cpuLimit?: number): void {
  const limit = cpuLimit === undefined ? undefined : new CpuLimit(cpuLimit, thread.now());
  const { vp } = thread.partition;
  const { words, pendingWord } = vp;
  let slice = SHORTEST_SLICE;
  let from = 0;
  let done = 0;
  let rested = 0;
  while (!thread.ended) {
    const { retired } = vp;
    const restedBefore = rested;
    const began = limit === undefined ? 0 : thread.now();
    const idleNs = thread.slice(slice);
    if (limit !== undefined) rested = rest(thread, limit.ran(began, thread.now()));
    // the clock is looked at once a slice: when it begins, which is when the one before it has ended
    const at = thread.partition.steppedAt;
    slice = nextSlice(slice, done, at - from - restedBefore);
    from = at;
    done = vp.retired - retired;
    // mail that came after the last look has had its wake-up cleared by the step
    if (idleNs > 0 && !thread.hasMail) thread.sleep(words, pendingWord, 0, Math.min(idleNs / 1e6, LONGEST_SLEEP_MS));
    while (thread.outputBlocked && !thread.ended) {
      thread.sleep(control, Control.outstanding, Atomics.load(control, Control.outstanding), 100);
      thread.readMail();
      thread.partition.hypervisor?.takeHostWrites();
    }
  }
}
