/** Node as a platform for the API: worker threads, files, clocks. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { FromProcessor } from "../../vm/messages.js";
import type { Platform } from "../../vm/platform.js";

let runtime: Promise<Uint8Array<ArrayBuffer>> | undefined;

export const nodePlatform: Platform = {
  startProcessor(start, events) {
    const worker = new Worker(join(import.meta.dirname, "processor-worker.js"), { workerData: start, name: "processor-0" });
    worker.on("message", (m: FromProcessor) => events.onMessage(m));
    worker.on("error", (e: unknown) => events.onFailure(e instanceof Error ? e : new Error(String(e))));
    return {
      post: (m) => worker.postMessage(m),
      terminate: async () => void (await worker.terminate()),
    };
  },
  runtime() {
    runtime ??= readFile(join(import.meta.dirname, "../../../runtime.wasm")).then((b) => new Uint8Array(b));
    return runtime;
  },
  now: () => Number(process.hrtime.bigint()),
  wallClockSeconds: () => Math.floor(Date.now() / 1000),
  random: () => randomBytes(4).readInt32LE(0),
  setTimer(ms, fire) {
    const t = setTimeout(fire, ms);
    return () => clearTimeout(t);
  },
  yield: () => new Promise((resolve) => setImmediate(resolve)),
};
