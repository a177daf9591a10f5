/** `enlighten run`: boots a guest; its console here, or a command's output and exit code. */
import { createWriteStream, type WriteStream } from "node:fs";
import { createVm } from "../host/node/index.js";
import { stressFromEnvironment } from "../host/node/stress.js";
import type { TraceRecord } from "../trace/trace.js";
import type { ServiceName } from "../vm/device-messages.js";
import { type NetworkOptions, type PublishSpec, type ShareOptions, type Vm, type VmEnd, VmError } from "../vm/index.js";
import { TraceDecoder } from "../vm/trace-decoder.js";
import { describeFailure, ExitCode } from "./exit-codes.js";
import { networkLines } from "./network-status.js";
import { ProgressLine } from "./progress.js";
import { attachTerminal } from "./terminal.js";

export interface RunOptions {
  readonly memory: number;
  readonly append?: string;
  readonly kernel?: string;
  readonly initrd?: readonly string[];
  readonly exec?: string;
  readonly timeout?: number;
  readonly serialLog?: string;
  readonly json?: boolean;
  readonly offline?: boolean;
  readonly mirror?: string;
  readonly keyring?: string;
  readonly cpu: string;
  readonly stats?: boolean;
  readonly deterministic?: number;
  readonly debugExit?: boolean;
  readonly strictFloat?: boolean;
  readonly regions?: boolean;
  readonly lockstep?: boolean;
  readonly traceCpu?: string;
  readonly trace?: string;
  readonly disk: readonly DiskArgument[];
  /** Bytes of a disk that is to be made. */
  readonly size?: number;
  /** Of a guest with a root disk: more packages, and where the disk is kept. */
  readonly packages?: readonly string[];
  readonly root?: string;
  readonly services?: "none" | readonly ServiceName[];
  readonly net?: { readonly mode: "nat" | "none"; readonly allow?: readonly string[] };
  readonly publish: readonly PublishSpec[];
  readonly share: readonly ShareOptions[];
  readonly pcap?: string;
}

export interface DiskArgument {
  readonly file: string;
  readonly readOnly: boolean;
  readonly kind: "disk" | "dvd";
}

/** Events of `--json`, one object a line on standard output. */
type Emit = (event: Record<string, unknown>) => void;

const seconds = (ns: number): string => (ns / 1e9).toFixed(1);

function endCode(end: VmEnd, hasExec: boolean): number {
  switch (end.how) {
    case "power-off":
      return hasExec ? (end.exitCode ?? ExitCode.failed) : ExitCode.ok;
    case "debug-exit":
      return end.exitCode ?? ExitCode.failed;
    case "killed":
      return ExitCode.killed;
    default:
      return ExitCode.failed;
  }
}

export async function run(guest: string | undefined, o: RunOptions): Promise<number> {
  const json = o.json === true;
  const emit: Emit = (event) => {
    if (json) process.stdout.write(`${JSON.stringify(event)}\n`);
  };
  const progress = new ProgressLine(process.stderr, json);
  const controller = new AbortController();
  let interrupted: NodeJS.Signals | undefined;
  let vm: Vm | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    interrupted = signal;
    controller.abort(new VmError("aborted", "interrupted"));
    void vm?.kill();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal);
  let restore = (): void => {};
  let log: WriteStream | undefined;
  const logs: WriteStream[] = [];
  let logFailure: VmError | undefined;
  const logFailed = (e: VmError): void => {
    logFailure ??= e;
    void vm?.kill();
  };
  let timer: NodeJS.Timeout | undefined;
  let timedOut = false;
  try {
    if (o.timeout !== undefined)
      timer = setTimeout(() => {
        timedOut = true;
        controller.abort(new VmError("timeout", "time-out"));
        void vm?.kill();
      }, o.timeout * 1000);
    const trace = o.traceCpu === undefined ? undefined : await openLog(o.traceCpu, "trace", logFailed);
    const events = o.trace === undefined ? undefined : await openLog(o.trace, "trace", logFailed);
    const decoder = new TraceDecoder();
    const noStorage = o.services !== undefined && !o.services.includes("storage");
    if (o.disk.length > 0 && noStorage)
      throw new VmError("bad-option", "there are disks, but no storage service", "add storage to --services");
    const regions = o.regions === false ? false : (stressFromEnvironment() ?? o.regions);
    vm = await createVm({
      disks: o.disk.map((d) => ({
        ...d,
        ...(o.size === undefined || d.readOnly ? {} : { createBytes: o.size }),
      })),
      ...(o.services === undefined ? {} : { services: o.services }),
      ...networkOptions(o),
      ...(o.share.length === 0 ? {} : { shares: o.share }),
      ...(o.packages === undefined ? {} : { packages: o.packages }),
      ...(o.root === undefined ? {} : { rootFile: o.root }),
      // with disks of its own the command line means those
      ...(o.size === undefined || o.disk.length > 0 ? {} : { rootBytes: o.size }),
      ...(events === undefined
        ? {}
        : {
            trace: (records: readonly TraceRecord[]) => {
              events.write(records.map((r) => `${JSON.stringify(decoder.decode(r))}\n`).join(""));
            },
          }),
      ...(trace === undefined ? {} : { traceCpu: (lines: string) => flow(trace, lines) }),
      ...(o.kernel === undefined ? { image: guest ?? "debian:12" } : { kernel: o.kernel, initrd: o.initrd ?? [] }),
      memoryMiB: o.memory,
      commands: false,
      cpu: o.cpu,
      progress: (p) => {
        emit({ event: "progress", ...p });
        progress.report(p);
      },
      signal: controller.signal,
      ...(o.append === undefined ? {} : { append: o.append }),
      ...(o.exec === undefined ? {} : { exec: o.exec, stdin: !process.stdin.isTTY }),
      ...(o.mirror === undefined ? {} : { mirror: o.mirror }),
      ...(o.keyring === undefined ? {} : { keyring: o.keyring }),
      ...(o.offline === undefined ? {} : { offline: o.offline }),
      ...(o.deterministic === undefined ? {} : { deterministic: o.deterministic }),
      ...(regions === undefined ? {} : { regions }),
      ...(o.lockstep === undefined ? {} : { lockstep: o.lockstep }),
      ...(o.strictFloat === undefined ? {} : { strictFloat: o.strictFloat }),
      ...(o.debugExit === undefined ? {} : { debugExit: o.debugExit }),
    });
    progress.clear();
    const machine = vm;
    if (trace !== undefined) logs.push(trace);
    if (events !== undefined) logs.push(events);
    machine.integration.onProblem((text) => {
      emit({ event: "problem", text });
      if (!json) process.stderr.write(`\r\nenlighten: ${text}\r\n`);
    });
    if (json)
      machine.integration.onLights(({ vmbusVersion, services }) => {
        emit({ event: "lights", vmbusVersion, services });
      });
    if (o.serialLog !== undefined) log = await openLog(o.serialLog, "serial log", logFailed);
    const output = log;
    machine.onOutput(0, (bytes) => {
      output?.write(bytes);
      if (json)
        return flow(
          process.stdout,
          `${JSON.stringify({ event: "console", text: Buffer.from(bytes).toString("latin1") })}\n`,
        );
      return o.exec === undefined ? flow(process.stdout, bytes) : undefined;
    });
    if (o.exec !== undefined) {
      for (const [port, stream, name] of [
        [1, process.stdout, "stdout"],
        [2, process.stderr, "stderr"],
      ] as const)
        machine.onOutput(port, (bytes) => {
          if (json)
            return flow(
              process.stdout,
              `${JSON.stringify({ event: name, data: Buffer.from(bytes).toString("base64") })}\n`,
            );
          return flow(stream, bytes);
        });
    }
    machine.onReboot(() => {
      emit({ event: "reboot" });
      if (!json && o.exec === undefined) process.stderr.write("\r\nenlighten: the guest reboots\r\n");
    });
    controller.signal.throwIfAborted();
    await machine.start();
    emit({ event: "started", memoryMiB: o.memory });
    if (o.publish.length > 0) await tellPorts(machine, o, json ? emit : undefined);
    if (o.exec !== undefined && !process.stdin.isTTY) forwardInput(machine);
    if (o.exec === undefined && !json) {
      if (process.stdin.isTTY) {
        process.stderr.write("enlighten: Ctrl-] then ? for help\n");
        announce(machine, progress);
      }
      restore = attachTerminal(machine, { onQuit: () => void machine.kill(), status: () => status(machine) });
    }
    const end = await machine.waitForEnd();
    restore();
    if (logFailure !== undefined && interrupted === undefined && !timedOut) throw logFailure;
    const code =
      interrupted !== undefined
        ? interrupted === "SIGINT"
          ? ExitCode.interrupted
          : ExitCode.killed
        : timedOut
          ? ExitCode.timeout
          : endCode(end, o.exec !== undefined);
    emit({ event: "ended", how: timedOut ? "timeout" : end.how, detail: end.detail, exitCode: code });
    printRecords(machine, end, json ? emit : undefined);
    if (!json) explain(machine, end, timedOut, o);
    if (o.stats) await printStats(machine, json ? emit : undefined);
    return code;
  } catch (error) {
    restore();
    progress.clear();
    if (interrupted !== undefined) {
      emit({ event: "ended", how: "interrupted" });
      if (!json) process.stderr.write("enlighten: interrupted\n");
      return interrupted === "SIGINT" ? ExitCode.interrupted : ExitCode.killed;
    }
    if (timedOut) {
      emit({ event: "ended", how: "timeout" });
      if (!json)
        process.stderr.write(
          `enlighten: time-out after ${o.timeout} s, while ${vm === undefined ? "preparing the guest" : "starting"}\n`,
        );
      return ExitCode.timeout;
    }
    const failure = describeFailure(error);
    emit({ event: "error", ...failure });
    if (!json) reportFailure(failure, error);
    return failure.exitCode;
  } finally {
    clearTimeout(timer);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.off(signal, onSignal);
    await vm?.kill();
    if (log !== undefined) logs.push(log);
    for (const stream of logs) if (stream.writable) await new Promise<void>((resolve) => stream.end(() => resolve()));
  }
}

/** Only what the user said: a machine without options has its own defaults. */
function networkOptions(o: RunOptions): { readonly network?: NetworkOptions } {
  if (o.net === undefined && o.publish.length === 0 && o.pcap === undefined) return {};
  return { network: { ...o.net, publish: o.publish, ...(o.pcap === undefined ? {} : { pcap: o.pcap }) } };
}
/** Published ports, as events; people are told of those that they did not choose themselves. */
async function tellPorts(machine: Vm, o: RunOptions, emit: Emit | undefined): Promise<void> {
  for (const { protocol, host, hostPort, guest } of await machine.network.published()) {
    emit?.({ event: "published", protocol, host, hostPort, guest });
    if (emit === undefined && o.publish.some((p) => p.hostPort === 0))
      process.stderr.write(`enlighten: ${host} leads to ${guest}${protocol === "udp" ? " (udp)" : ""}\n`);
  }
}

/** Standard input to the command. */
function forwardInput(machine: Vm): void {
  const run = async (): Promise<void> => {
    for await (const data of process.stdin) await machine.writeStdin(data as Uint8Array);
    await machine.writeStdin(undefined);
  };
  // input that cannot be read is no input
  run().catch(() => machine.writeStdin(undefined));
}

/** Writes; a promise where the reader is slow. */
function flow(stream: NodeJS.WritableStream, data: string | Uint8Array): void | Promise<void> {
  let settle = (): void => {};
  const taken = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return stream.write(data, () => settle()) ? undefined : taken;
}

/** The line that says what lit up waits this long for the agent. */
const AGENT_MS = 700;
/** "debian:12 up in 2.4 s · VMBus 5.3 · storage heartbeat": what lit up. */
function summary(machine: Vm): string {
  const { vmbusVersion, services } = machine.integration.lights;
  const lights =
    vmbusVersion === undefined ? [] : [`VMBus ${vmbusVersion}`, ...(services.length > 0 ? [services.join(" ")] : [])];
  const [name, ...more] = machine.guest.description.split(" · ");
  return [`${name} up in ${seconds(machine.uptimeNs)} s`, ...more, ...lights].join(" · ");
}

/** On a terminal: that it boots, and one line when it is up. */
function announce(machine: Vm, progress: ProgressLine): void {
  const { description } = machine.guest;
  progress.show(`booting ${description} …`);
  const stop = machine.onOutput(0, () => {
    progress.clear();
    stop();
  });
  const lit = async (): Promise<void> => {
    await machine.waitForPrompt();
    // the agent comes up beside the shell
    if (machine.integration.lights.vmbusVersion !== undefined)
      await machine.integration.waitForLights(["sockets"], { timeoutMs: AGENT_MS }).catch(() => {});
  };
  lit().then(
    () => {
      if (machine.guest.prompt !== undefined) process.stderr.write(`\r\x1b[K\r\n${summary(machine)}\r\n`);
      // the shell has drawn its prompt already: an empty line makes it draw another
      if (machine.guest.prompt !== undefined && machine.state === "running") machine.write("\n");
    },
    () => {},
  );
}

export function reportFailure(failure: ReturnType<typeof describeFailure>, error: unknown): void {
  process.stderr.write(`enlighten: ${failure.message}\n`);
  if (failure.hint !== "") process.stderr.write(`  try: ${failure.hint}\n`);
  if (process.env.ENLIGHTEN_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}

/** @param onFailure when it cannot be written any more, a full disk for one */
function openLog(path: string, what: string, onFailure: (e: VmError) => void): Promise<WriteStream> {
  return new Promise((resolve, reject) => {
    const stream = createWriteStream(path);
    stream.once("open", () => {
      stream.removeAllListeners("error");
      stream.on("error", (e: NodeJS.ErrnoException) =>
        onFailure(
          new VmError(
            "failed",
            `the ${what} ${path} cannot be written (${e.code})`,
            "free some space there, or name another file",
          ),
        ),
      );
      resolve(stream);
    });
    stream.once("error", (e: NodeJS.ErrnoException) =>
      reject(
        new VmError(
          "bad-option",
          `cannot write the ${what} ${path} (${e.code})`,
          "name a file in a folder that exists and may be written",
        ),
      ),
    );
  });
}

/** Records that people get to see before a panic's text; our own mistakes show all. */
const SHOWN_RECORDS = 40;
/** What passed between guest and host before it crashed. */
function printRecords(vm: Vm, end: VmEnd, emit: Emit | undefined): void {
  const all = vm.lastRecords;
  if (all.length === 0) return;
  const decoder = new TraceDecoder();
  const decoded = all.map((r) => decoder.decode(r));
  if (emit !== undefined) {
    emit({ event: "trace", records: decoded });
    return;
  }
  // ticks are most of what there is, and say nothing
  const telling = decoded.filter(({ event }) => event !== "timer-expired" && event !== "interrupt");
  const shown = end.how === "failed" ? decoded : telling.slice(-SHOWN_RECORDS);
  const lines = shown.map((r) => `  ${JSON.stringify(r)}\n`).join("");
  process.stderr.write(
    `\nenlighten: the last ${shown.length} messages between guest and host (all: --trace FILE)\n${lines}`,
  );
}

/** What the user has to be told about an end that was not the guest's own wish. */
function explain(vm: Vm, end: VmEnd, timedOut: boolean, o: RunOptions): void {
  const err = (text: string): void => void process.stderr.write(text);
  if (timedOut) {
    const what =
      o.exec === undefined ? "the guest to power off" : vm.ready ? "the command to end" : "the guest to come up";
    err(`enlighten: time-out after ${o.timeout} s, waiting for ${what}\n`);
    if (!vm.ready && vm.consoleTail !== "") err(`last console lines:\n${vm.consoleTail}\n`);
    return;
  }
  if (end.how === "crashed") err(`\nenlighten: the guest crashed\n${end.detail}\n`);
  else if (end.how === "failed") err(`\nenlighten: internal error, the machine was stopped\n${end.detail}\n`);
  else if (end.how === "power-off" && o.exec !== undefined && end.exitCode === undefined)
    err(`enlighten: the guest powered off before the command had ended\n${vm.consoleTail}\n`);
}

async function status(vm: Vm): Promise<string> {
  const [s, network] = await Promise.all([
    vm.stats({ timeoutMs: 2000 }),
    // a guest without a hypervisor has no devices to ask
    vm.network.status({ timeoutMs: 2000 }).catch(() => undefined),
  ]);
  const lines = [
    `up ${seconds(vm.uptimeNs)} s · ${(s.instructions / 1e6).toFixed(0)} M instructions · ${(s.instructions / (vm.uptimeNs / 1e3)).toFixed(0)} MIPS over all`,
    ...(network === undefined ? [] : networkLines(network)),
  ];
  return lines.join("\n");
}

async function printStats(vm: Vm, emit: Emit | undefined): Promise<void> {
  const s = await vm.stats().catch(() => undefined);
  if (s === undefined) return;
  const cpu = process.cpuUsage();
  const used = (cpu.user + cpu.system) / 1e6;
  if (emit !== undefined) {
    emit({ event: "stats", ...s, cpuSeconds: used, rssBytes: process.memoryUsage().rss });
    return;
  }
  const lines = [
    `instructions ${(s.instructions / 1e6).toFixed(1)} M   cpu ${used.toFixed(2)} s   ${(s.instructions / used / 1e6).toFixed(0)} MIPS   rss ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`,
    ...Object.entries(s.counters).map(([name, n]) => `${name.padEnd(22)} ${n}`),
  ];
  process.stderr.write(`${lines.join("\n")}\n`);
}
