/** The public API: one virtual machine, from its files to its end. Every wait has a time-out and an AbortSignal. */
import { SERIAL_PORTS } from "../chipset/chipset.js";
import { parseCpuModel } from "../cpu/vp/cpuid.js";
import { buildAcpiTables } from "../firmware/acpi/tables.js";
import { prepareLinuxBoot } from "../firmware/linux-boot.js";
import { concatBytes } from "../image/byte-reader.js";
import { COMMAND_SERVER, shellWords } from "../image/init/command-server.js";
import { execCpio } from "../image/init/exec-cpio.js";
import { readKernelImage } from "../image/kernel-image.js";
import type { TraceRecord } from "../trace/trace.js";
import { ConsoleLog, findPanic, PANIC_IS_COMPLETE } from "./console-log.js";
import { startDeterministic } from "./deterministic.js";
import {
  type DeviceSideState,
  type DeviceSpec,
  type DiskSpec,
  type FromDevices,
  SERVICE_NAMES,
  type ServiceName,
} from "./device-messages.js";
import { fromPlain, Integration } from "./integration.js";
import type { SerialNumber } from "./machine-spec.js";
import {
  Control,
  type EndKind,
  type FromProcessor,
  type ProcessorStart,
  type ProcessorStats,
  type TimeBase,
} from "./messages.js";
import type { PartitionState } from "./partition.js";
import type { DeviceHandle, GuestFiles, Platform, ProcessorHandle } from "./platform.js";
import { VmError } from "./vm-error.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

export interface VmOptions {
  readonly guest: GuestFiles;
  /** MiB of guest memory. */
  readonly memoryMiB?: number;
  /** "default", "max", "+feature,-feature". */
  readonly cpu?: string;
  /** Added to the kernel's command line. */
  readonly append?: string;
  /** Run this instead of a login shell, then power off: a shell script, or a program with its arguments. */
  readonly exec?: string | readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The guest takes commands (`Vm.exec`) beside its console. Default: yes, where its init knows how. */
  readonly commands?: boolean;
  /** A seed: the deterministic scheduler. */
  readonly deterministic?: number;
  readonly debugExit?: boolean;
  /** Gets a line for every instruction before it runs: count, RIP, bytes, text. Very slow. */
  readonly traceCpu?: (lines: string) => void | Promise<void>;
  /** Synthetic devices that are offered (default: all), or "none": a PC without a hypervisor. */
  readonly services?: "none" | readonly ServiceName[];
  /** On the synthetic SCSI controller, LUN 0 and up. */
  readonly disks?: readonly (Omit<DiskSpec, "kind"> & { readonly kind?: DiskSpec["kind"] })[];
  /** Gets every VMBus and service message, hypercall and interrupt. */
  readonly trace?: (records: readonly TraceRecord[]) => void;
  /** Go on with a saved machine instead of booting. */
  readonly saved?: PartitionState;
}

/** How a machine ended. */
export interface VmEnd {
  readonly how: "power-off" | "crashed" | "killed" | "debug-exit" | "failed";
  /** Panic text, registers after a triple fault, our own error. */
  readonly detail: string;
  /** Exit code of `exec`, or of the debug port. */
  readonly exitCode: number | undefined;
}

type Listener<T> = (value: T) => void;
/** May return a promise: until it is settled, the bytes count as not taken, and a guest that prints much waits. */
export type OutputListener = (bytes: Uint8Array) => void | Promise<void>;
/** What a command left. */
export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output as it came. */
  readonly stdoutBytes: Uint8Array;
}

/** Base64 without line breaks (RFC 4648); `btoa` would want a string of characters below 256. */
function base64(bytes: Uint8Array): string {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const n = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    out +=
      digits[n >> 18]! +
      digits[(n >> 12) & 63]! +
      (i + 1 < bytes.length ? digits[(n >> 6) & 63]! : "=") +
      (i + 2 < bytes.length ? digits[n & 63]! : "=");
  }
  return out;
}

/** Base64 characters of a command: the guest's terminal buffers 64 KiB and drops the rest. */
const MAX_COMMAND = 48_000;

/** Takes a waiter that gave up off its list. */
function forget<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}

export class Vm implements AsyncDisposable {
  readonly #platform: Platform;
  readonly #options: VmOptions;
  readonly #log = new ConsoleLog();
  #processor: ProcessorHandle | undefined;
  #control = new Int32Array(new SharedArrayBuffer(Control.words * 4));
  #memory: { words: Int32Array; pendingWord: number } | undefined;
  #stats: ProcessorStats | undefined;
  #end: VmEnd | undefined;
  readonly #endListeners = new Set<() => void>();
  readonly #outputListeners: Set<OutputListener>[] = [new Set(), new Set(), new Set(), new Set()];
  readonly #rebootListeners = new Set<() => void>();
  readonly #answers: { stats: Listener<ProcessorStats>[]; saved: Listener<PartitionState>[] } = {
    stats: [],
    saved: [],
  };
  #controlLine = "";
  #exitCode: number | undefined;
  #started = false;
  #devices: DeviceHandle | undefined;
  /** What the device side was frozen with, while the machine is being saved. */
  #frozen: ((state: DeviceSideState) => void) | undefined;
  #resumed: { readonly timeNs: number } | undefined;
  #paused: ((timeNs: number) => void) | undefined;
  readonly #waits: WaitContext;
  /** The services that the guest's own drivers answer. */
  readonly integration: Integration;
  #ready = false;
  readonly #readyListeners: (() => void)[] = [];
  /** Commands run one after the other. */
  #lastCommand: Promise<unknown> = Promise.resolve();
  #commandEnded: ((exitCode: number) => void) | undefined;
  #abandoned = 0;
  #forgetOutput: () => void = () => {};
  #startedAt = 0;
  #reboots = 0;

  constructor(platform: Platform, options: VmOptions) {
    this.#platform = platform;
    this.#options = options;
    const vm = this;
    this.#waits = {
      platform,
      get hasEnded() {
        return vm.#end !== undefined;
      },
      endError: () => this.#endError(),
      onEnd: (listener) => {
        this.#endListeners.add(listener);
        return () => void this.#endListeners.delete(listener);
      },
      consoleTail: () => this.#log.tail(),
    };
    this.integration = new Integration(this.#waits, () => {
      const devices = this.#devices;
      return devices === undefined ? undefined : (m, transfer) => devices.post(m, transfer);
    });
    const before = options.saved?.guest;
    if (before !== undefined) {
      this.#ready = before.ready;
      this.#log.push(new TextEncoder().encode(before.console));
    }
    if (options.exec !== undefined && !options.guest.takesExec) {
      throw new VmError(
        "no-exec",
        "this guest's init does not run commands",
        "use a guest by reference (debian:12), or give the command on the console",
      );
    }
  }

  /** Loads the machine and lets it run. */
  async start(): Promise<void> {
    if (this.#started) throw new VmError("already-started", "the machine has been started before");
    this.#started = true;
    await this.#boot();
  }

  async #boot(): Promise<void> {
    const { guest, cpu = "default", append = "", exec, env } = this.#options;
    // a machine that went on from a saved state boots anew when it resets
    const saved = this.#reboots === 0 ? this.#options.saved : undefined;
    const savedMiB = this.#options.saved === undefined ? undefined : this.#options.saved.ramBytes / 2 ** 20;
    const memoryMiB = this.#options.memoryMiB ?? savedMiB ?? 512;
    if (savedMiB !== undefined && savedMiB !== memoryMiB)
      throw new VmError(
        "bad-option",
        `the saved machine has ${savedMiB} MiB of memory, not ${memoryMiB}`,
        "leave memoryMiB out",
      );
    this.#startedAt = this.#platform.now();
    const common = {
      ramBytes: memoryMiB * 2 ** 20,
      features: [...parseCpuModel(cpu)],
      debugExit: this.#options.debugExit ?? false,
      hypervisor: saved === undefined ? this.#services.length > 0 : saved.hypervisor !== undefined,
      trace: this.#options.trace !== undefined,
      traceCpu: this.#options.traceCpu !== undefined,
    };
    let spec: ProcessorStart["spec"];
    const transfer = new Set<ArrayBuffer>();
    if (saved !== undefined) spec = { ...common, saved };
    else {
      const files = await guest.load();
      const kernel = await readKernelImage(files.kernel);
      const command = exec ?? (this.#serves ? COMMAND_SERVER : undefined);
      const initrds = command === undefined ? files.initrds : [...files.initrds, execCpio(command, env)];
      const commandLine = [guest.commandLine, append].filter((s) => s !== "").join(" ");
      const boot = prepareLinuxBoot({
        setupHeader: kernel.setupHeader,
        elf: kernel.elf,
        initrds,
        commandLine,
        memoryBytes: common.ramBytes,
        acpi: buildAcpiTables({ processors: 1, serial: SERIAL_PORTS, vmbus: common.hypervisor }),
      });
      for (const { bytes } of boot.writes) if (bytes.buffer instanceof ArrayBuffer) transfer.add(bytes.buffer);
      spec = { ...common, boot };
    }
    const engine = await this.#platform.engine();
    const seed = this.#options.deterministic;
    if (common.hypervisor && seed === undefined && this.#devices === undefined) await this.#startDevices();
    const disks =
      common.hypervisor && seed !== undefined
        ? await this.#platform.openDisks(this.#deviceSpec().disks, (text) =>
            this.integration.receive({ type: "problem", text }),
          )
        : undefined;
    if (this.#end !== undefined) return;
    this.#control = new Int32Array(new SharedArrayBuffer(Control.words * 4));
    const start: ProcessorStart = {
      spec,
      engine,
      wallClockSeconds: this.#platform.wallClockSeconds(),
      time: this.#platform.timeBase(saved?.timeNs ?? 0),
      control: this.#control,
    };
    const events = {
      onMessage: (m: FromProcessor): void => this.#receive(m),
      onFailure: (error: Error): void =>
        this.#finish({ how: "failed", detail: error.stack ?? error.message, exitCode: undefined }),
    };
    this.#machine = { ramBytes: common.ramBytes, time: start.time, saved: saved?.devices };
    if (seed === undefined) this.#processor = this.#platform.startProcessor(start, events, [...transfer]);
    else {
      const { processor, devices } = startDeterministic(this.#platform, start, seed, events, {
        spec: common.hypervisor ? this.#deviceSpec() : undefined,
        disks,
        saved: saved?.devices,
        post: (m) => this.#fromDevices(m),
      });
      this.#processor = processor;
      this.#devices = devices;
      if (devices !== undefined) this.integration.machineStarted();
    }
  }
  #machine: { ramBytes: number; time: TimeBase; saved: DeviceSideState | undefined } | undefined;
  get #services(): readonly ServiceName[] {
    const before = this.#options.saved?.devices;
    const { services = before?.services ?? SERVICE_NAMES } = this.#options;
    return services === "none" ? [] : services;
  }
  #deviceSpec(): DeviceSpec {
    return {
      services: this.#services,
      disks: (this.#options.disks ?? []).map((d) => ({ kind: "disk", ...d })),
      trace: this.#options.trace !== undefined,
    };
  }
  /** The device side's thread, for all of the machine's boots. Fails when a disk cannot be opened. */
  async #startDevices(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#devices = this.#platform.startDevices(this.#deviceSpec(), {
        onMessage: (m) => {
          if (m.type === "started") resolve();
          else if (m.type === "failed") {
            reject(fromPlain(m.error));
            this.#fail(m.error.message);
          } else this.#fromDevices(m);
        },
        onFailure: (error) => {
          reject(error);
          this.#fail(error.stack ?? error.message);
        },
      });
    });
  }
  #fail(detail: string): void {
    if (this.#processor !== undefined) void this.#stop({ how: "failed", detail, exitCode: undefined });
  }
  #fromDevices(m: FromDevices): void {
    if (this.#end !== undefined && m.type !== "trace") return;
    if (m.type === "frozen") {
      this.#frozen?.(m.state);
      this.#frozen = undefined;
    } else if (m.type === "trace") this.#options.trace?.(m.records);
    else this.integration.receive(m);
  }

  #receive(m: FromProcessor): void {
    if (this.#end !== undefined) return;
    switch (m.type) {
      case "started":
        this.#memory = { words: new Int32Array(m.memory), pendingWord: m.pendingWord };
        this.#startMachine(m.memory);
        this.#platform.trim();
        break;
      case "output":
        this.#output(m.serial, m.bytes);
        break;
      case "trace":
        this.#taken(m.text.length, [this.#options.traceCpu?.(m.text)]);
        break;
      case "records":
        if (!m.last) this.#options.trace?.(m.records);
        break;
      case "crash":
        void this.#stop({
          how: "crashed",
          detail: findPanic(this.#log.recent) ?? (m.text || `crash parameters ${m.parameters.join(" ")}`),
          exitCode: undefined,
        });
        break;
      case "paused":
        this.#paused?.(m.timeNs);
        this.#paused = undefined;
        break;
      case "stats":
        this.#stats = m.stats;
        for (const f of this.#answers.stats.splice(0)) f(m.stats);
        break;
      case "saved":
        for (const f of this.#answers.saved.splice(0))
          f({ ...m.state, guest: { ready: this.#ready, console: this.#log.recent } });
        break;
      case "ended":
        this.#stats = m.stats;
        this.#ended(m.how, m.detail);
        break;
    }
  }
  #output(serial: SerialNumber, bytes: Uint8Array): void {
    if (serial === 0) {
      this.#log.push(bytes);
      if (PANIC_IS_COMPLETE.test(this.#log.recent)) this.#panicked();
    } else if (serial === 3) this.#controlBytes(bytes);
    this.#taken(
      bytes.length,
      Array.from(this.#outputListeners[serial]!, (f) => f(bytes)),
    );
  }
  /** Output counts as taken once every listener has done with it: a slow reader makes the guest wait. */
  #taken(length: number, listeners: readonly (void | Promise<void>)[]): void {
    const control = this.#control;
    const release = (): void => {
      Atomics.sub(control, Control.outstanding, length);
      Atomics.notify(control, Control.outstanding);
    };
    const waits = listeners.filter((x) => x instanceof Promise);
    if (waits.length === 0) release();
    else void Promise.allSettled(waits).then(release);
  }
  #panicked(): void {
    const panic = findPanic(this.#log.recent) ?? "";
    void this.#stop({ how: "crashed", detail: panic, exitCode: undefined });
  }
  #controlBytes(bytes: Uint8Array): void {
    for (const b of bytes) {
      if (b !== 10) {
        if (this.#controlLine.length < 256) this.#controlLine += String.fromCharCode(b);
        continue;
      }
      const line = this.#controlLine.trim();
      this.#controlLine = "";
      if (line === (this.#serves ? "serving" : "ready")) {
        this.#ready = true;
        for (const f of this.#readyListeners.splice(0)) f();
      }
      const exit = /^exit (\d+)$/.exec(line);
      if (exit === null) continue;
      if (this.#abandoned > 0) {
        this.#abandoned--;
        this.#forgetOutput();
        continue;
      }
      if (this.#commandEnded !== undefined) this.#commandEnded(Number(exit[1]));
      else this.#exitCode = Number(exit[1]);
    }
  }
  #ended(how: EndKind, detail: string): void {
    switch (how) {
      case "reset":
        if (findPanic(this.#log.recent) !== undefined) this.#panicked();
        else void this.#reboot();
        return;
      case "power-off":
        return void this.#stop({ how: "power-off", detail, exitCode: this.#exitCode });
      case "debug-exit":
        return void this.#stop({ how: "debug-exit", detail, exitCode: Number(detail) });
      case "stopped":
        return void this.#stop({ how: "killed", detail, exitCode: undefined });
      case "deadlock":
      case "triple-fault":
        return void this.#stop({
          how: "crashed",
          detail: how === "deadlock" ? detail : `triple fault\n${detail}`,
          exitCode: undefined,
        });
      case "failed":
        return void this.#stop({ how: "failed", detail, exitCode: undefined });
    }
  }
  /** The guest reset itself: a new machine from the same files. */
  async #reboot(): Promise<void> {
    const old = this.#processor;
    this.#processor = undefined;
    await old?.terminate();
    if (this.#end !== undefined) return;
    this.#reboots++;
    this.#ready = false;
    this.#abandoned = 0;
    for (const f of this.#rebootListeners) f();
    try {
      await this.#boot();
    } catch (error) {
      this.#finish({
        how: "failed",
        detail: error instanceof Error ? error.message : String(error),
        exitCode: undefined,
      });
    }
  }
  async #stop(end: VmEnd): Promise<void> {
    const processor = this.#processor;
    const devices = this.#devices;
    this.#finish(end);
    await processor?.terminate();
    await devices?.terminate();
  }
  #finish(end: VmEnd): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.integration.dropSockets();
    for (const f of [...this.#endListeners]) f();
    this.#endListeners.clear();
  }

  /** What it was made from. */
  get guest(): GuestFiles {
    return this.#options.guest;
  }
  /** Text of the first serial port: the guest's console. */
  get consoleText(): string {
    return this.#log.text;
  }
  get consoleTail(): string {
    return this.#log.tail();
  }
  get state(): "new" | "running" | "ended" {
    return this.#end !== undefined ? "ended" : this.#processor === undefined ? "new" : "running";
  }
  /** Whether the command of `exec` has started. */
  get ready(): boolean {
    return this.#ready;
  }
  get #serves(): boolean {
    return this.#options.exec === undefined && this.#options.guest.takesExec && (this.#options.commands ?? true);
  }
  get reboots(): number {
    return this.#reboots;
  }
  /** ns of host time since the start. */
  get uptimeNs(): number {
    return this.#platform.now() - this.#startedAt;
  }
  get end(): VmEnd | undefined {
    return this.#end;
  }
  /** Bytes of a serial port as they come. @returns a function that ends it */
  onOutput(serial: SerialNumber, listener: OutputListener): () => void {
    this.#outputListeners[serial]!.add(listener);
    return () => void this.#outputListeners[serial]!.delete(listener);
  }
  onReboot(listener: () => void): () => void {
    this.#rebootListeners.add(listener);
    return () => void this.#rebootListeners.delete(listener);
  }

  #post(message: Parameters<ProcessorHandle["post"]>[0]): void {
    if (this.#end !== undefined) throw this.#endError();
    if (this.#processor === undefined)
      throw new VmError("not-started", "the machine has not been started", "call start() first");
    this.#processor.post(message);
    Atomics.add(this.#control, Control.mail, 1);
    this.#wake();
  }
  #wake(): void {
    if (this.#memory === undefined) return;
    const { words, pendingWord } = this.#memory;
    Atomics.or(words, pendingWord, 8);
    if (words.buffer instanceof SharedArrayBuffer) Atomics.notify(words, pendingWord);
  }
  /** Waits until the guest takes commands on its console; at once where nothing tells it. */
  async waitForPrompt(o: WaitOptions = {}): Promise<void> {
    if (this.#options.guest.prompt !== undefined) await this.waitFor(this.#options.guest.prompt, o);
  }
  /** Types on the console (serial 0) or sends to another port. */
  write(data: string | Uint8Array, serial: SerialNumber = 0): void {
    this.#post({
      type: "input",
      serial,
      bytes: typeof data === "string" ? new TextEncoder().encode(data) : data.slice(),
    });
  }
  pressPowerButton(): void {
    this.#post({ type: "power-button" });
  }

  #endError(): VmError {
    const end = this.#end!;
    const crashed = end.how === "crashed" || end.how === "failed";
    return new VmError(
      crashed ? "guest-crashed" : "ended",
      `the machine has ended (${end.how})${crashed ? `: ${end.detail}` : ""}`,
      "",
      this.#log.tail(),
    );
  }
  #wait<T>(
    what: string,
    o: WaitOptions,
    failAtEnd: boolean,
    arm: (done: (value: T) => void, fail: (e: Error) => void) => () => void,
  ): Promise<T> {
    return waitUntil(this.#waits, what, o, failAtEnd, arm);
  }
  /**
   * Waits until the console shows `pattern`.
   * @param from position to look from (default: everything kept); `mark()` gives the present one
   * @returns the text that matched
   */
  waitFor(pattern: string | RegExp, o: WaitOptions & { readonly from?: number } = {}): Promise<string> {
    const find = (): string | undefined => {
      const text = this.#log.from(o.from ?? 0);
      if (typeof pattern === "string") return text.includes(pattern) ? pattern : undefined;
      return pattern.exec(text)?.[0];
    };
    return this.#wait<string>(`${String(pattern)} on the console`, o, true, (done) => {
      const check = (): void => {
        const found = find();
        if (found !== undefined) done(found);
      };
      const undo = this.onOutput(0, check);
      queueMicrotask(check);
      return undo;
    });
  }
  /** The console's present end, for `waitFor`. */
  mark(): number {
    return this.#log.end;
  }
  /** Fails a wait whose answer was the old machine's. @returns what undoes it, `undo` included */
  #untilReboot(fail: (e: Error) => void, undo: () => void): () => void {
    const off = this.onReboot(() =>
      fail(new VmError("ended", "the guest rebooted meanwhile", "ask again", this.#log.tail())),
    );
    return () => {
      off();
      undo();
    };
  }
  /** Waits for the machine's end. */
  waitForEnd(o: WaitOptions = {}): Promise<VmEnd> {
    if (this.#end !== undefined) return Promise.resolve(this.#end);
    return this.#wait<VmEnd>("the machine's end", o, false, (done) => {
      const onEnd = (): void => done(this.#end!);
      this.#endListeners.add(onEnd);
      return () => void this.#endListeners.delete(onEnd);
    });
  }
  stats(o: WaitOptions = {}): Promise<ProcessorStats> {
    if (this.#end !== undefined && this.#stats !== undefined) return Promise.resolve(this.#stats);
    return this.#wait<ProcessorStats>("the counters", o, true, (done, fail) => {
      this.#answers.stats.push(done);
      this.#post({ type: "stats" });
      return this.#untilReboot(fail, () => forget(this.#answers.stats, done));
    });
  }
  /**
   * Runs a command in the guest: a shell script, or a program with its arguments. Waits for the guest to be up first.
   * @throws VmError when the time is up, when it is aborted, when the machine ends
   */
  exec(command: string | readonly string[], o: WaitOptions = {}): Promise<ExecResult> {
    if (!this.#serves)
      return Promise.reject(
        new VmError(
          "no-exec",
          "this guest does not take commands",
          'use a guest by reference, without "commands: false" and without "exec"',
        ),
      );
    const script = base64(new TextEncoder().encode(typeof command === "string" ? command : shellWords(command)));
    // more than the guest's terminal holds would be cut there
    if (script.length > MAX_COMMAND)
      return Promise.reject(
        new VmError(
          "bad-option",
          `the command has ${script.length} bytes in base64; ${MAX_COMMAND} fit`,
          "write a file in pieces first, or give it as `exec` of createVm",
        ),
      );
    const before = this.#lastCommand;
    const since = this.#platform.now();
    // the time that it waits for its turn counts too
    const run = this.#wait<void>("earlier commands to end", o, true, (done) => {
      void before.then(() => done());
      return () => {};
    }).then(() => {
      if (o.timeoutMs === undefined) return this.#exec(script, o);
      return this.#exec(script, { ...o, timeoutMs: Math.max(1, o.timeoutMs - (this.#platform.now() - since) / 1e6) });
    });
    this.#lastCommand = Promise.allSettled([before, run]);
    return run;
  }
  async #exec(script: string, o: WaitOptions): Promise<ExecResult> {
    if (!this.#ready)
      await this.#wait<void>("the guest to take commands", o, true, (done) => {
        this.#readyListeners.push(done);
        return () => {};
      });
    const output: Uint8Array[][] = [[], []];
    const undo = [this.onOutput(1, (b) => void output[0]!.push(b)), this.onOutput(2, (b) => void output[1]!.push(b))];
    try {
      const exitCode = await this.#wait<number>("the command to end", o, true, (done, fail) => {
        let ended = false;
        this.#commandEnded = (code) => {
          ended = true;
          done(code);
        };
        this.#forgetOutput = () => {
          for (const parts of output) parts.length = 0;
        };
        const rebooted = this.onReboot(() => {
          ended = true;
          fail(new VmError("ended", "the guest rebooted while the command ran", "", this.#log.tail()));
        });
        this.write(`${script}\n`, 3);
        return () => {
          rebooted();
          this.#commandEnded = undefined;
          // given up here, it still runs there: its end and its output are nobody's
          if (!ended) this.#abandoned++;
        };
      });
      const [stdout, stderr] = output.map((parts) => concatBytes(parts)) as [Uint8Array, Uint8Array];
      return {
        exitCode,
        stdout: new TextDecoder().decode(stdout),
        stderr: new TextDecoder().decode(stderr),
        stdoutBytes: stdout,
      };
    } finally {
      for (const f of undo) f();
    }
  }
  #startMachine(memory: SharedArrayBuffer | ArrayBuffer): void {
    if (this.#options.deterministic !== undefined || this.#devices === undefined) return;
    const { ramBytes, time, saved } = this.#machine!;
    this.#devices.post({ type: "machine", memory, ramBytes, time, ...(saved === undefined ? {} : { saved }) });
    this.integration.machineStarted();
  }
  /** The machine's whole state at the end of its current slice; it runs on. */
  async save(o: WaitOptions = {}): Promise<PartitionState> {
    const devices = await this.#freeze(o);
    try {
      const state = await this.#wait<PartitionState>("the saved state", o, true, (done, fail) => {
        this.#answers.saved.push(done);
        this.#post({ type: "save" });
        return this.#untilReboot(fail, () => forget(this.#answers.saved, done));
      });
      return devices === undefined ? state : { ...state, devices };
    } finally {
      this.#devices?.post({ type: "thaw" });
    }
  }
  /** The device side finishes what is in flight and stands still. @returns its state */
  async #freeze(o: WaitOptions): Promise<DeviceSideState | undefined> {
    const devices = this.#devices;
    if (devices === undefined) return undefined;
    return this.#wait<DeviceSideState>("the devices to stand still", o, true, (done) => {
      this.#frozen = done;
      devices.post({ type: "freeze" });
      return () => {};
    });
  }
  /** Stops virtual time and everything in it. The guest's clock is set right when it goes on. */
  async pause(o: WaitOptions = {}): Promise<void> {
    if (this.#resumed !== undefined) return;
    await this.#freeze(o);
    const timeNs = await this.#wait<number>("the processor to stand still", o, true, (done) => {
      this.#paused = done;
      this.#post({ type: "pause" });
      return () => {};
    });
    this.#resumed = { timeNs };
  }
  /** Goes on after `pause`. */
  resume(): void {
    if (this.#resumed === undefined) return;
    const time = this.#platform.timeBase(this.#resumed.timeNs);
    this.#resumed = undefined;
    this.#devices?.post({ type: "thaw", time });
    this.#post({ type: "resume", time });
    if (this.#services.includes("timesync")) this.integration.synchronizeTime();
  }
  get paused(): boolean {
    return this.#resumed !== undefined;
  }
  /** Ends it at once. */
  async kill(): Promise<void> {
    await this.#stop({ how: "killed", detail: "", exitCode: undefined });
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
