/** Regions compiled on a thread of their own, for a processor whose thread never comes to its event loop. */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from "node:worker_threads";
import type { EngineConstants, FinishedBatch, RegionCompiler, RegionRequest } from "../../cpu/region/batch-compiler.js";
import { ENGINE_FILES } from "./engine-files.js";
import { SMALL_YOUNG_GENERATION } from "./engine-flags.js";
import { collectGarbage } from "./garbage.js";
import type { KnownCode, RegionWorkerData } from "./region-worker.js";

export class WorkerCompiler implements RegionCompiler {
  readonly #constants: EngineConstants;
  readonly #usesCache: boolean;
  readonly #answers = new Int32Array(new SharedArrayBuffer(4));
  #taken = 0;
  #worker: Worker | undefined;
  #port: MessagePort | undefined;
  #known: ReadonlySet<number> = new Set();

  /** @param usesCache regions of other runs are used, and kept for others: the thread starts now; else at the first request */
  constructor(constants: EngineConstants, usesCache = false) {
    this.#constants = constants;
    this.#usesCache = usesCache;
    if (usesCache) this.#port = this.#start();
  }
  knows(hash: number): boolean {
    return this.#known.has(hash);
  }
  request(requests: readonly RegionRequest[]): void {
    this.#port ??= this.#start();
    this.#port.postMessage(requests);
  }
  get ready(): boolean {
    return Atomics.load(this.#answers, 0) !== this.#taken;
  }
  /** @throws what went wrong over there: a bug of ours */
  take(): FinishedBatch | undefined {
    if (!this.ready) return undefined;
    this.#taken = (this.#taken + 1) | 0;
    const { message } = receiveMessageOnPort(this.#port!)!;
    const { failure, hashes } = message as { readonly failure?: string } & Partial<KnownCode>;
    if (hashes !== undefined) {
      this.#known = new Set(hashes);
      return this.take();
    }
    if (failure !== undefined) throw new Error(`a region could not be compiled: ${failure}`);
    return message as FinishedBatch;
  }
  /** On both threads: a module goes when neither refers to it. */
  collect(): void {
    this.#port?.postMessage("collect");
    collectGarbage();
  }
  /** Ends the thread. */
  stop(): void {
    void this.#worker?.terminate();
  }
  #start(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const { base, shared } = this.#constants;
    const workerData: RegionWorkerData = {
      port: port2,
      constants: { base, shared },
      answers: this.#answers,
      usesCache: this.#usesCache,
    };
    this.#worker = new Worker(ENGINE_FILES.regionWorker, {
      name: "regions",
      workerData,
      transferList: [port2],
      resourceLimits: SMALL_YOUNG_GENERATION,
    });
    // a machine that has ended is not held up by it
    this.#worker.unref();
    port1.unref();
    return port1;
  }
}
