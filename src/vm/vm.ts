import { parseCpuModel } from "../cpu/vp/cpuid.js";
import type { TraceRecord } from "../trace/trace.js";
import { type AdapterSpecs, adapterSpecs } from "./adapter-specs.js";
import { bootImage } from "./boot-image.js";
import { ConsoleLog, findPanic, PANIC_IS_COMPLETE } from "./console-log.js";
import { startDeterministic } from "./deterministic.js";
import {
  type DeviceSideState,
  type DeviceSpec,
  type FromDevices,
  type PlainError,
  SERVICE_NAMES,
  type ServiceName,
} from "./device-messages.js";
import { type Command, type ExecOptions, type ExecResult, GuestAgent, type SpawnListeners } from "./guest-agent.js";
import { type CopyFrom, type CopyOptions, type CopyResult, type CopyTo, GuestCopies } from "./guest-copy.js";
import type { GuestProcess, SpawnOptions } from "./guest-process.js";
import { GuestShares, type ShareOptions, shareSpecs } from "./guest-shares.js";
import { fromPlain, Integration } from "./integration.js";
import { LastRecords } from "./last-records.js";
import type { SerialNumber } from "./machine-spec.js";
import { MainCommand } from "./main-command.js";
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
import { SerialCommands } from "./serial-commands.js";
import { VmError } from "./vm-error.js";
import { VmNetwork } from "./vm-network.js";
import type { VmEnd, VmOptions } from "./vm-options.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

type Listener<T> = (value: T) => void;
/** May return a promise: until it is settled, the bytes count as not taken, and a guest that prints much waits. */
export type OutputListener = (bytes: Uint8Array) => void | Promise<void>;
/** What a repeatable guest takes for the present: the first second of 2026. */
const DETERMINISTIC_DATE = 1_767_225_600;
/** A guest that was asked to go down gets this long. */
const SHUTDOWN_MS = 15_000;

/** Takes a waiter that gave up off its list. */
function forget<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}

/** A machine. It is made by `createVm`, runs from `start()` to its end, and starts once. */
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
  #started = false;
  #devices: DeviceHandle | undefined;
  /** What the device side was frozen with, while the machine is being saved. */
  #frozen: ((state: DeviceSideState) => void) | undefined;
  #resumed: { readonly timeNs: number } | undefined;
  #paused: ((timeNs: number) => void) | undefined;
  readonly #waits: WaitContext;
  /** The services that the guest's own drivers answer. */
  readonly integration: Integration;
  /** Published ports, what the guest may reach, counters. */
  readonly network: VmNetwork;
  readonly #adapters: AdapterSpecs;
  readonly #shares: GuestShares;
  /** Commands by serial ports, and by the agent. */
  readonly #serial: SerialCommands;
  readonly #agent: GuestAgent;
  readonly #main: MainCommand;
  readonly #copies: GuestCopies;
  #startedAt = 0;
  #reboots = 0;

  /** @internal */
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
    this.#adapters = adapterSpecs(options, this.#services, () => platform.random());
    this.network = new VmNetwork(this.integration, this.#adapters.another);
    this.#serial = new SerialCommands(this.#waits, this, this.#serves ? "serving" : "ready");
    const { first } = this.#adapters;
    const hasNetwork = first?.isPluggedIn === true;
    const shares = shareSpecs(options.shares ?? [], {
      hasNetwork,
      isShared: first?.isShared === true,
      hasAgent: this.#byAgent,
    });
    this.#shares = new GuestShares(shares, this.integration, (command, o) => this.#agent.exec(command, o));
    this.#agent = new GuestAgent(this.#waits, this.integration, () => this.#shares.mount());
    this.#copies = new GuestCopies(this.#waits, this.integration, (command, o) => this.spawn(command, o));
    this.#main = new MainCommand(this.#agent, { hasInput: options.stdin === true, hasNetwork });
    this.#agent.onReady(() => this.#runMain());
    const before = options.saved?.guest;
    if (before !== undefined) {
      this.#serial.setReady(before.ready);
      this.#agent.setReady(before.agent ?? false);
      this.#log.push(new TextEncoder().encode(before.console));
    }
    const { cpuLimit, deterministic } = options;
    if (cpuLimit !== undefined && !(cpuLimit >= 1 && cpuLimit <= 100))
      throw new VmError("bad-option", `a processor cannot be limited to ${cpuLimit} percent`, "1 to 100");
    if (cpuLimit !== undefined && deterministic !== undefined)
      throw new VmError("bad-option", "a deterministic machine has no share of the host's time", "leave cpuLimit out");
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
    // the device side knows its machine: what is asked of it from now on is not lost
    await this.#wait<void>("the machine to be made", {}, true, (done) => {
      this.#made = done;
      if (this.#memory !== undefined) done();
      return () => {};
    });
  }
  #made: (() => void) | undefined;

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
      strictFloat: this.#options.strictFloat ?? false,
      regions: this.#options.regions ?? this.#options.deterministic === undefined,
      hypervisor: saved === undefined ? this.#services.length > 0 : saved.hypervisor !== undefined,
      trace: this.#options.trace !== undefined,
      traceCpu: this.#options.traceCpu !== undefined,
    };
    let spec: ProcessorStart["spec"];
    const transfer = new Set<ArrayBuffer>();
    if (saved !== undefined) spec = { ...common, saved };
    else {
      const boot = await bootImage({
        guest,
        memoryBytes: common.ramBytes,
        append,
        exec,
        env,
        serves: this.#serves,
        agent: this.#byAgent ? (exec === undefined ? "shell" : "exec") : undefined,
        vmbus: common.hypervisor,
      });
      for (const { bytes } of boot.writes) if (bytes.buffer instanceof ArrayBuffer) transfer.add(bytes.buffer);
      spec = { ...common, boot };
    }
    const engine = await this.#platform.engine();
    const seed = this.#options.deterministic;
    if (common.hypervisor && seed === undefined && this.#devices === undefined) await this.#startDevices();
    const disks =
      common.hypervisor && seed !== undefined
        ? await this.#platform
            .openDisks(this.#deviceSpec().disks, (text) => this.integration.receive({ type: "problem", text }))
            .catch((error: PlainError) => {
              throw typeof error.code === "string" && typeof error.hint === "string" ? fromPlain(error) : error;
            })
        : undefined;
    if (this.#end !== undefined) return;
    this.#control = new Int32Array(new SharedArrayBuffer(Control.words * 4));
    const start: ProcessorStart = {
      spec,
      engine,
      wallClockSeconds: seed === undefined ? this.#platform.wallClockSeconds() : DETERMINISTIC_DATE,
      time: this.#platform.timeBase(saved?.timeNs ?? 0),
      control: this.#control,
      ...(this.#options.cpuLimit === undefined ? {} : { cpuLimit: this.#options.cpuLimit / 100 }),
    };
    const events = {
      onMessage: (m: FromProcessor): void => this.#receive(m),
      onFailure: (error: Error): void =>
        void this.#stop({ how: "failed", detail: error.stack ?? error.message, exitCode: undefined }),
    };
    this.#machine = { ramBytes: common.ramBytes, time: start.time, saved: saved?.devices };
    if (seed === undefined) this.#processor = this.#platform.startProcessor(start, events, [...transfer]);
    else {
      const { lockstep = false } = this.#options;
      if (lockstep && this.#deviceSpec().disks.length > 0)
        throw new VmError("bad-option", "two machines in lockstep cannot share disks", "leave the disks out");
      const side = {
        spec: common.hypervisor ? this.#deviceSpec() : undefined,
        disks,
        saved: saved?.devices,
        post: (m: FromDevices): void => this.#fromDevices(m),
      };
      const { processor, devices } = startDeterministic(this.#platform, start, seed, events, side, lockstep);
      this.#processor = processor;
      this.#devices = devices;
      if (devices !== undefined) this.integration.machineStarted();
    }
  }
  #machine: { ramBytes: number; time: TimeBase; saved: DeviceSideState | undefined } | undefined;
  get #services(): readonly ServiceName[] {
    const before = this.#options.saved?.devices;
    const { services = before?.services ?? SERVICE_NAMES, network, deterministic } = this.#options;
    if (services === "none") return [];
    // one that was saved with an adapter keeps it, unplugged
    const isOut = network?.mode === "none" || (deterministic !== undefined && this.#options.services === undefined);
    return before === undefined && isOut ? services.filter((name) => name !== "network") : services;
  }
  #deviceSpec(): DeviceSpec {
    const { first, others } = this.#adapters;
    return {
      services: this.#services,
      disks: [...(this.#options.guest.disks ?? []), ...(this.#options.disks ?? [])].map((d) => ({
        kind: "disk",
        ...d,
      })),
      ...(first === undefined ? {} : { network: first, adapters: others }),
      shares: this.#shares.specs,
      trace: this.#options.trace !== undefined,
    };
  }
  /** The device side's thread, for all of the machine's boots. Fails when a disk cannot be opened. */
  async #startDevices(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const { network, adapters = [] } = this.#options;
      const cables = [network, ...adapters].map((o) => o?.join?.plug());
      this.#devices = this.#platform.startDevices(
        this.#deviceSpec(),
        {
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
        },
        cables,
      );
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
    else if (m.type === "share-changed") this.#shares.changed(m);
    else if (m.type === "share-scanned") this.#shares.scanned(m);
    else this.integration.receive(m);
  }

  #receive(m: FromProcessor): void {
    if (this.#end !== undefined) return;
    switch (m.type) {
      case "started":
        this.#memory = { words: new Int32Array(m.memory), pendingWord: m.pendingWord };
        this.#startMachine(m.memory);
        this.#made?.();
        this.#platform.trim();
        break;
      case "output":
        this.#output(m.serial, m.bytes);
        break;
      case "trace":
        this.#taken(m.text.length, [this.#options.traceCpu?.(m.text)]);
        break;
      case "records":
        if (m.last) {
          this.#lastRecords.push(m.records);
        } else this.#options.trace?.(m.records);
        break;
      case "crash": {
        // a console may print later than the kernel's own log says it
        const panic = findPanic(this.#log.recent) ?? findPanic(m.text) ?? m.text;
        void this.#stop({
          how: "crashed",
          detail: panic === "" ? `crash parameters ${m.parameters.join(" ")}` : panic,
          exitCode: undefined,
        });
        break;
      }
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
          f({
            ...m.state,
            guest: { ready: this.#serial.ready, agent: this.#agent.ready, console: this.#log.recent },
          });
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
    } else if (serial === 3) this.#serial.receive(bytes);
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
  #ended(how: EndKind, detail: string): void {
    switch (how) {
      case "reset":
        if (findPanic(this.#log.recent) !== undefined) this.#panicked();
        else void this.#reboot();
        return;
      case "power-off":
        return void this.#stop({ how: "power-off", detail, exitCode: this.#main.exitCode ?? this.#serial.exitCode });
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
    if (this.#options.deterministic !== undefined) {
      // its device side is this machine's alone
      await this.#devices?.terminate();
      this.#devices = undefined;
    }
    if (this.#end !== undefined) return;
    this.#reboots++;
    this.#serial.setReady(false);
    this.#agent.setReady(false);
    this.#main.forget();
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
  /** What the machine's threads had recorded when it crashed or failed, by time. */
  get lastRecords(): readonly TraceRecord[] {
    return this.#lastRecords.sorted;
  }
  readonly #lastRecords = new LastRecords();
  async #stop(end: VmEnd): Promise<void> {
    const processor = this.#processor;
    const devices = this.#devices;
    const isReport = end.how === "crashed" || end.how === "failed";
    if (isReport && devices !== undefined && this.#end === undefined)
      await this.#lastRecords.collect(this.#platform, this.integration, () => {
        processor?.post({ type: "trace" });
        Atomics.add(this.#control, Control.mail, 1);
        this.#wake();
      });
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

  /** Folders of the host that the guest sees, and where: all that was left open is filled in. */
  get shares(): readonly Required<ShareOptions>[] {
    return this.#shares.specs;
  }
  /** What it was made from. */
  get guest(): GuestFiles {
    return this.#options.guest;
  }
  /** Text of the first serial port: the guest's console. */
  get consoleText(): string {
    return this.#log.text;
  }
  /** The console's last lines, for messages. */
  get consoleTail(): string {
    return this.#log.tail();
  }
  /** "new" before `start()`. */
  get state(): "new" | "running" | "ended" {
    return this.#end !== undefined ? "ended" : this.#processor === undefined ? "new" : "running";
  }
  /** Whether the command of `exec` has started. */
  get ready(): boolean {
    return this.#serial.ready || this.#agent.ready;
  }
  get #serves(): boolean {
    return this.#options.exec === undefined && this.#options.guest.takesExec && (this.#options.commands ?? true);
  }
  /** Whether the agent in the guest takes commands. */
  get #byAgent(): boolean {
    // answers of this thread come at times of the host's: a run with it could not be repeated
    if (this.#options.deterministic !== undefined) return false;
    return this.#options.guest.hasAgent === true && this.#services.includes("sockets");
  }
  /** How often the guest has reset itself. */
  get reboots(): number {
    return this.#reboots;
  }
  /** ns of host time since the start. */
  get uptimeNs(): number {
    return this.#platform.now() - this.#startedAt;
  }
  /** How it ended; undefined while it runs. */
  get end(): VmEnd | undefined {
    return this.#end;
  }
  /** Bytes of a serial port as they come. @returns a function that ends it */
  onOutput(serial: SerialNumber, listener: OutputListener): () => void {
    this.#outputListeners[serial]!.add(listener);
    return () => void this.#outputListeners[serial]!.delete(listener);
  }
  /** Called when the guest resets itself. @returns a function that ends it */
  onReboot(listener: () => void): () => void {
    this.#rebootListeners.add(listener);
    return () => void this.#rebootListeners.delete(listener);
  }

  #checkStarted(): void {
    if (!this.#started) throw new VmError("not-started", "the machine has not been started", "call start() first");
  }
  #post(message: Parameters<ProcessorHandle["post"]>[0]): void {
    if (this.#end !== undefined) throw this.#endError();
    this.#checkStarted();
    const processor = this.#processor;
    if (processor === undefined)
      throw new VmError("not-started", "the machine is not loaded yet", "await start() first");
    processor.post(message);
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
  /** As ACPI's: what the guest does about it is its own setting. */
  pressPowerButton(): void {
    this.#post({ type: "power-button" });
  }

  /** A non-maskable interrupt: what a guest does with it is its own setting (Linux: kernel.unknown_nmi_panic). */
  injectNmi(): void {
    this.#post({ type: "nmi" });
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
  /** Counters of the processor; those at its end once it has ended. */
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
   * @throws VmError when the time is up, when it is aborted, when the machine ends, when it has not been started
   */
  exec(command: Command, o: ExecOptions = {}): Promise<ExecResult> {
    if (!this.#serves)
      return Promise.reject(
        new VmError(
          "no-exec",
          "this guest does not take commands",
          'use a guest by reference, without "commands: false" and without "exec"',
        ),
      );
    return this.#exec(command, o);
  }
  async #exec(command: Command, o: ExecOptions): Promise<ExecResult> {
    const since = this.#platform.now();
    this.#checkStarted();
    if (!this.ready)
      await this.#wait<void>("the guest to take commands", o, true, (done) => {
        const undo = [this.#agent.onReady(done), this.#serial.onReady(done)];
        return () => {
          for (const f of undo) f();
        };
      });
    const spent = (this.#platform.now() - since) / 1e6;
    const rest = o.timeoutMs === undefined ? o : { ...o, timeoutMs: Math.max(1, o.timeoutMs - spent) };
    if (this.#agent.ready) return this.#agent.exec(command, rest);
    if (
      o.stdin !== undefined ||
      o.pty !== undefined ||
      o.user !== undefined ||
      o.cwd !== undefined ||
      o.env !== undefined
    )
      throw new VmError(
        "no-exec",
        "over serial ports a command has no input, terminal, user, folder or environment of its own",
        "offer the sockets service, and take a guest with the agent (debian:12)",
      );
    return this.#serial.exec(command, rest);
  }
  /**
   * Starts a program in the guest and gives its input, output, signals and end. Waits for the agent in the guest first.
   * @throws VmError "no-exec" where there is none
   */
  async spawn(command: Command, o: SpawnOptions & SpawnListeners & WaitOptions = {}): Promise<GuestProcess> {
    if (!this.#byAgent)
      throw new VmError(
        "no-exec",
        "this machine has no agent",
        "take debian:12 with the sockets service, not deterministic",
      );
    this.#checkStarted();
    if (!this.#agent.ready)
      await this.#wait<void>("the agent in the guest", o, true, (done) => this.#agent.onReady(done));
    return this.#agent.spawn(command, o);
  }
  /**
   * Copies a file or a tree of the host into the guest, as `cp -a` does: into a folder that is there, else under that name.
   * @param from a host path; or the bytes of a file, of which `guestPath` is the name
   * @throws VmError "not-found", "no-permission", "no-space", "exists", "mismatch"; as every wait
   */
  copyIn(from: CopyFrom, guestPath: string, o: CopyOptions = {}): Promise<CopyResult> {
    return this.#copies.in(from, guestPath, o);
  }
  /**
   * Copies a file or a tree of the guest to the host; owners are not taken over, nor setuid and setgid.
   * @param to a host path; or a function that gets a file's bytes, a piece at a time
   * @throws VmError as `copyIn`
   */
  copyOut(guestPath: string, to: CopyTo, o: CopyOptions = {}): Promise<CopyResult> {
    return this.#copies.out(guestPath, to, o);
  }
  /** Standard input of the command of `exec`; undefined ends it. Needs `stdin: true`. */
  writeStdin(data: Uint8Array | string | undefined): Promise<void> {
    return this.#main.write(data);
  }
  /** The agent is up: it gets the command that the machine was made for. */
  #runMain(): void {
    const main = this.#main;
    if (this.#options.exec === undefined || main.hasStarted || main.exitCode !== undefined) return;
    const run = async (): Promise<void> => {
      await main.run({ onStdout: (data) => this.#deliver(1, data), onStderr: (data) => this.#deliver(2, data) });
      await this.integration.shutdown({ force: true, timeoutMs: SHUTDOWN_MS });
      await this.waitForEnd({ timeoutMs: SHUTDOWN_MS });
    };
    run().catch((error: unknown) => {
      if (this.#end !== undefined) return;
      // it has run, or never will: what is left is to end the machine
      if (main.exitCode !== undefined) void this.#stop({ how: "power-off", detail: "", exitCode: main.exitCode });
      else void this.#stop({ how: "failed", detail: String((error as Error).message ?? error), exitCode: undefined });
    });
  }
  /** Output that did not come from a port: the listeners of that port get it. */
  #deliver(serial: SerialNumber, bytes: Uint8Array): void | Promise<void> {
    const waits = Array.from(this.#outputListeners[serial]!, (f) => f(bytes)).filter((x) => x instanceof Promise);
    if (waits.length > 0) return Promise.allSettled(waits).then(() => {});
  }
  #startMachine(memory: SharedArrayBuffer | ArrayBuffer): void {
    if (this.#options.deterministic !== undefined || this.#devices === undefined) return;
    const { ramBytes, time, saved } = this.#machine!;
    this.#devices.post({ type: "machine", memory, ramBytes, time, ...(saved === undefined ? {} : { saved }) });
    this.integration.machineStarted();
  }
  /** The machine's whole state at the end of its current slice; it runs on. */
  async save(o: WaitOptions = {}): Promise<PartitionState> {
    const devices = this.#devices === undefined ? undefined : await this.#freeze(o);
    try {
      const state = await this.#wait<PartitionState>("the saved state", o, true, (done, fail) => {
        this.#answers.saved.push(done);
        this.#post({ type: "save" });
        return this.#untilReboot(fail, () => forget(this.#answers.saved, done));
      });
      return devices === undefined ? state : { ...state, devices };
    } finally {
      if (!this.paused) this.#devices?.post({ type: "thaw" });
    }
  }
  /** The device side finishes what is in flight and stands still. @returns its state */
  async #freeze(o: WaitOptions): Promise<DeviceSideState | undefined> {
    const devices = this.#devices;
    if (devices === undefined) return undefined;
    return this.#wait<DeviceSideState>("the devices to stand still", o, true, (done, fail) => {
      this.#frozen = done;
      devices.post({ type: "freeze" });
      return this.#untilReboot(fail, () => {});
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
  /** Between `pause` and `resume`. */
  get paused(): boolean {
    return this.#resumed !== undefined;
  }
  /** Ends it at once. */
  async kill(): Promise<void> {
    await this.#stop({ how: "killed", detail: "", exitCode: undefined });
  }
  /** As `kill`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
