/** `enlighten run`: boots a guest; its console here, or a command's output and exit code. */
import { createWriteStream, type WriteStream } from "node:fs";
import type { CommandOutput } from "../control/commands.js";
import { growUp, stayYoung } from "../host/node/engine-flags.js";
import { createVm } from "../host/node/index.js";
import { stressFromEnvironment } from "../host/node/stress.js";
import type { TraceRecord } from "../trace/trace.js";
import type { ServiceName } from "../vm/device-messages.js";
import { type NetworkOptions, type PublishSpec, type ShareOptions, type Vm, type VmEnd, VmError } from "../vm/index.js";
import { TraceDecoder } from "../vm/trace-decoder.js";
import { describeFailure, ExitCode, reportFailure } from "./exit-codes.js";
import { Starter } from "./named/detach.js";
import { MAIN_COMMAND, NamedMachine } from "./named/named-machine.js";
import { ProgressLine } from "./progress.js";
import { AGENT_MS, describeEnd, explain, printRecords, printStats, status, summary } from "./run-report.js";
import { attachTerminal, type ConsoleTarget } from "./terminal.js";

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
  readonly cpuLimit?: number;
  readonly name?: string;
  readonly detach?: boolean;
  /** This process was started by the one of `--detach`. */
  readonly detachedChild?: boolean;
}

export interface DiskArgument {
  readonly file: string;
  readonly readOnly: boolean;
  readonly kind: "disk" | "dvd";
}

/** Events of `--json`, one object a line on standard output. */
export type Emit = (event: Record<string, unknown>) => void;

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
  // what a detached one has to say goes to the one that started it, and to logs
  const json = o.json === true && o.detachedChild !== true;
  const emit: Emit = (event) => {
    if (json) process.stdout.write(`${JSON.stringify(event)}\n`);
  };
  const progress = new ProgressLine(process.stderr, json);
  const controller = new AbortController();
  let interrupted: NodeJS.Signals | undefined;
  let vm: Vm | undefined;
  let named: NamedMachine | undefined;
  let isUp = false;
  const interrupt = (signal: NodeJS.Signals): void => {
    interrupted = signal;
    controller.abort(new VmError("aborted", "interrupted"));
    void vm?.kill();
  };
  let isGoing = false;
  const onSignal = (signal: NodeJS.Signals): void => {
    // nobody is there to see a detached guest die: it is asked to go, unless it is told again
    if (starter === undefined || !isUp || isGoing) {
      interrupt(signal);
      return;
    }
    isGoing = true;
    named?.shutDown().catch((error: Error) => {
      process.stderr.write(`enlighten: ${signal}: ${error.message}\n`);
      interrupt(signal);
    });
  };
  const starter = o.detachedChild === true ? new Starter(() => interrupt("SIGHUP")) : undefined;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal);
  let restore = (): void => {};
  let log: WriteStream | undefined;
  let mainOutput: CommandOutput | undefined;
  const logs: WriteStream[] = [];
  let logFailure: VmError | undefined;
  const logFailed = (e: VmError): void => {
    logFailure ??= e;
    void vm?.kill();
  };
  let timer: NodeJS.Timeout | undefined;
  let timedOut = false;
  let how = "it did not start";
  stayYoung();
  try {
    const what = { guest: o.kernel ?? guest ?? "debian:12", memoryMiB: o.memory };
    if (starter !== undefined) {
      await starter.go();
      named = NamedMachine.adopt(o.name!, what);
    } else if (o.name !== undefined) named = NamedMachine.claim(o.name, what);
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
        if (starter === undefined) progress.report(p);
        else starter.tell({ type: "progress", progress: p });
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
      ...(o.cpuLimit === undefined ? {} : { cpuLimit: o.cpuLimit }),
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
      return o.exec === undefined && starter === undefined ? flow(process.stdout, bytes) : undefined;
    });
    if (o.exec !== undefined && starter !== undefined) {
      mainOutput = named!.keep(MAIN_COMMAND);
      for (const port of [1, 2] as const) machine.onOutput(port, (bytes) => mainOutput!.write(bytes));
    } else if (o.exec !== undefined) {
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
    await named?.serve(machine);
    await machine.start();
    growUp();
    emit({ event: "started", memoryMiB: o.memory });
    if (o.publish.length > 0) await tellPorts(machine, o, json ? emit : undefined);
    if (o.exec !== undefined && !process.stdin.isTTY) forwardInput(machine);
    void whenUp(machine, o).then(
      () => {
        if (machine.state !== "running") return;
        isUp = true;
        named?.isUp();
        starter?.tell({ type: "up", summary: summary(machine) });
      },
      // how it ended is told below
      () => {},
    );
    if (o.exec === undefined && !json && starter === undefined) {
      if (process.stdin.isTTY) {
        process.stderr.write("enlighten: Ctrl-] then ? for help\n");
        announce(machine, o, progress);
      }
      restore = attachTerminal(consoleOf(machine), {
        leave: "quit: end the machine at once",
        onQuit: () => void machine.kill(),
        status: () => status(machine),
      });
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
    how = timedOut ? "time-out" : end.how;
    mainOutput?.close({ exitCode: code });
    starter?.tell({
      type: "failed",
      failure: {
        exitCode: code === ExitCode.ok ? ExitCode.failed : code,
        code: timedOut ? "timeout" : end.how,
        message: describeEnd(end, timedOut, o),
        hint: "",
      },
      consoleTail: machine.consoleTail,
    });
    emit({ event: "ended", how: timedOut ? "timeout" : end.how, detail: end.detail, exitCode: code });
    printRecords(machine, end, json ? emit : undefined);
    if (!json) explain(machine, end, timedOut, o);
    if (o.stats) await printStats(machine, json ? emit : undefined);
    return code;
  } catch (error) {
    restore();
    progress.clear();
    if (starter !== undefined) {
      const failure = timedOut
        ? describeFailure(new VmError("timeout", `time-out after ${o.timeout} s, while preparing the guest`))
        : describeFailure(error);
      starter.tell({ type: "failed", failure, consoleTail: vm?.consoleTail ?? "" });
    }
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
    await named?.close(interrupted === undefined ? how : interrupted);
    if (log !== undefined) logs.push(log);
    for (const stream of logs) if (stream.writable) await new Promise<void>((resolve) => stream.end(() => resolve()));
  }
}

function consoleOf(machine: Vm): ConsoleTarget {
  return {
    isRunning: () => machine.state === "running",
    write: (bytes) => machine.write(bytes),
    pressPowerButton: () => machine.pressPowerButton(),
    ready: () => machine.waitForPrompt(),
    // what Ctrl-D says on a terminal
    ended: () => machine.write(Uint8Array.of(4)),
  };
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

/** Settles when the guest takes commands, as far as anybody can tell. */
async function whenUp(machine: Vm, o: RunOptions): Promise<void> {
  if (o.exec === undefined) await machine.waitForPrompt();
  const { lights } = machine.integration;
  const hasAgent = machine.guest.hasAgent === true && o.deterministic === undefined;
  if (!hasAgent || (o.services !== undefined && !o.services.includes("sockets"))) return;
  if (o.exec !== undefined) await machine.integration.waitForLights(["sockets"]);
  // the agent comes up beside the shell
  else if (lights.vmbusVersion !== undefined)
    await machine.integration.waitForLights(["sockets"], { timeoutMs: AGENT_MS }).catch(() => {});
}
/** On a terminal: that it boots, and one line when it is up. */
function announce(machine: Vm, o: RunOptions, progress: ProgressLine): void {
  const { description } = machine.guest;
  progress.show(`booting ${description} …`);
  const stop = machine.onOutput(0, () => {
    progress.clear();
    stop();
  });
  whenUp(machine, o).then(
    () => {
      if (machine.guest.prompt !== undefined) process.stderr.write(`\r\x1b[K\r\n${summary(machine)}\r\n`);
      // the shell has drawn its prompt already: an empty line makes it draw another
      if (machine.guest.prompt !== undefined && machine.state === "running") machine.write("\n");
    },
    () => {},
  );
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
