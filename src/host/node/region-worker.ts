/** The thread in Node that compiles one processor's regions: requests by a port, modules back by the same. */
import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { BatchCompiler, type EngineConstants, MAX_BATCH, type RegionRequest } from "../../cpu/region/batch-compiler.js";
import { tieringUpLater } from "./engine-flags.js";
import { collectGarbage } from "./garbage.js";
import { openRegionCache } from "./region-cache-file.js";

export interface RegionWorkerData {
  readonly port: MessagePort;
  readonly constants: EngineConstants;
  /** Counts answers, so that the processor sees them without asking the port. */
  readonly answers: Int32Array;
  readonly usesCache: boolean;
}

/** The first answer, if there is anything: hashes of code that was worth a region in other runs. */
export interface KnownCode {
  readonly hashes: Uint32Array;
}

const { port, constants, answers, usesCache } = workerData as RegionWorkerData;
const cache = usesCache ? openRegionCache(constants) : undefined;
const compiler = new BatchCompiler(constants, cache);
if (cache !== undefined && cache.hashes.length > 0) {
  port.postMessage({ hashes: cache.hashes } satisfies KnownCode);
  Atomics.add(answers, 0, 1);
}

function answer(requests: readonly RegionRequest[]): unknown {
  const from = process.hrtime.bigint();
  try {
    const batch = tieringUpLater(() => compiler.compile(requests));
    return { batch, backgroundMs: Number(process.hrtime.bigint() - from) / 1e6 };
  } catch (error) {
    return { failure: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}
type Message = readonly RegionRequest[] | "collect";
port.on("message", (first: Message) => {
  const requests: RegionRequest[] = [];
  let collect = false;
  // with what has come while the last batch was made
  for (let message: Message | undefined = first; message !== undefined; ) {
    if (message === "collect") collect = true;
    else requests.push(...message);
    if (requests.length >= MAX_BATCH) break;
    message = receiveMessageOnPort(port)?.message as Message | undefined;
  }
  if (collect) collectGarbage();
  if (requests.length === 0) return;
  port.postMessage(answer(requests));
  Atomics.add(answers, 0, 1);
});
