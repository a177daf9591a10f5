/** Node as a platform for the API: worker threads, files, clocks. */
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { type MessagePort, type Transferable, Worker } from "node:worker_threads";
import { FIRST_BLOCK, Vp } from "../../cpu/layout.js";
import { PartitionArea } from "../../hypervisor/shared-areas.js";
import type { FromDevices } from "../../vm/device-messages.js";
import type { EngineBytes, FromProcessor } from "../../vm/messages.js";
import type { DeviceHandle, Platform } from "../../vm/platform.js";
import { openSink } from "./copy-sink.js";
import { openSource } from "./copy-source.js";
import type { DeviceWorkerData } from "./device-worker.js";
import { ENGINE_FILES } from "./engine-files.js";
import { SMALL_YOUNG_GENERATION } from "./engine-flags.js";
import { openMachineDisks } from "./machine-disks.js";
import { trim } from "./trim.js";

const bytesOf = (path: string): Promise<Uint8Array<ArrayBuffer>> => readFile(path).then((b) => new Uint8Array(b));
let engine: Promise<EngineBytes> | undefined;
/** The engine's modules. */
export function readEngine(): Promise<EngineBytes> {
  engine ??= Promise.all([bytesOf(ENGINE_FILES.runtime), bytesOf(ENGINE_FILES.interpreter)]).then(
    ([runtime, interpreter]) => ({ runtime, interpreter }),
  );
  return engine;
}

/** Of any machine: the first processor's block is always at the same place. */
const DOORBELL = (FIRST_BLOCK + Vp.partition + PartitionArea.doorbell) >> 2;
/** A disk that does not take what it was given for so long never will. */
const CLOSE_MS = 30_000;

/** A thread that does not end for so long is told of: somebody waits for it. */
const END_MS = 10_000;
async function end(worker: Worker, name: string): Promise<void> {
  const tell = (): void =>
    process.emitWarning(`the thread of the ${name} does not end`, { code: "ENLIGHTEN_THREAD", detail: threads() });
  const timer = setTimeout(tell, END_MS).unref();
  await worker.terminate();
  clearTimeout(timer);
}
/** What the threads of this process wait for, where the system tells. */
function threads(): string {
  try {
    return readdirSync("/proc/self/task")
      .map((task) => {
        const of = (file: string): string => readFileSync(`/proc/self/task/${task}/${file}`, "utf8").trim();
        const state = /^State:\s*(.*)$/m.exec(of("status"))?.[1] ?? "";
        return `${task} ${of("comm")}: ${state}, ${of("wchan")}`;
      })
      .join("\n");
  } catch {
    return "";
  }
}

export const nodePlatform: Platform = {
  files: { openSource, openSink },
  startProcessor(start, events, transfer) {
    const worker = new Worker(ENGINE_FILES.processorWorker, {
      name: "processor-0",
      resourceLimits: SMALL_YOUNG_GENERATION,
    });
    worker.postMessage(start, [...transfer]);
    worker.on("message", (m: FromProcessor) => events.onMessage(m));
    worker.on("error", (e: unknown) => events.onFailure(e instanceof Error ? e : new Error(String(e))));
    return {
      post: (m) => worker.postMessage(m),
      terminate: () => end(worker, "processor"),
    };
  },
  startDevices(spec, events, given) {
    const cables = given as readonly (MessagePort | undefined)[];
    const workerData: DeviceWorkerData = { spec, cables };
    const transferList = cables.filter((cable) => cable !== undefined);
    const worker = new Worker(ENGINE_FILES.deviceWorker, {
      name: "devices",
      workerData,
      transferList,
      resourceLimits: SMALL_YOUNG_GENERATION,
    });
    worker.on("message", (m: FromDevices) => events.onMessage(m));
    worker.on("error", (e: unknown) => events.onFailure(e instanceof Error ? e : new Error(String(e))));
    let terminated: Promise<void> | undefined;
    const terminate = async (): Promise<void> => {
      // what the guest has flushed is on the disks already; what it has not goes there too
      await new Promise<void>((done) => {
        worker.on("message", (m: FromDevices) => {
          if (m.type === "closed" || m.type === "failed") done();
        });
        worker.on("error", () => done());
        worker.on("exit", () => done());
        setTimeout(done, CLOSE_MS).unref();
        handle.post({ type: "close" });
      });
      await end(worker, "devices");
    };
    let words: Int32Array | undefined;
    const handle: DeviceHandle = {
      post: (m, transfer = []) => {
        worker.postMessage(m, transfer as Transferable[]);
        if (m.type === "machine") words = new Int32Array(m.memory);
        if (words === undefined) return;
        // it may be blocked on this word, away from its messages
        Atomics.add(words, DOORBELL, 1);
        Atomics.notify(words, DOORBELL);
      },
      terminate: () => (terminated ??= terminate()),
    };
    return handle;
  },
  openDisks: (disks, onProblem) => openMachineDisks(disks, { inline: true, onProblem }),
  timeBase: (timeNs) => ({ timeNs, origin: process.hrtime() }),
  engine: readEngine,
  trim,
  now: () => Number(process.hrtime.bigint()),
  wallClockSeconds: () => Math.floor(Date.now() / 1000),
  random: () => randomBytes(4).readInt32LE(0),
  setTimer(ms, fire) {
    const t = setTimeout(fire, Math.min(ms, 2 ** 31 - 1));
    return () => clearTimeout(t);
  },
  yield: () => new Promise((resolve) => setImmediate(resolve)),
};
