/** The thread in Node that compiles one processor's regions: requests by a port, modules back by the same. */
import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { BatchCompiler, type EngineConstants, MAX_BATCH, type RegionRequest } from "../../cpu/region/batch-compiler.js";

export interface RegionWorkerData {
  readonly port: MessagePort;
  readonly constants: EngineConstants;
  /** Counts answers, so that the processor sees them without asking the port. */
  readonly answers: Int32Array;
}

const { port, constants, answers } = workerData as RegionWorkerData;
const compiler = new BatchCompiler(constants);

function answer(requests: readonly RegionRequest[]): unknown {
  const from = process.hrtime.bigint();
  try {
    const batch = compiler.compile(requests);
    return { batch, backgroundMs: Number(process.hrtime.bigint() - from) / 1e6 };
  } catch (error) {
    return { failure: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
}
port.on("message", (first: RegionRequest) => {
  const requests = [first];
  // what has come while the last batch was made
  while (requests.length < MAX_BATCH) {
    const next = receiveMessageOnPort(port);
    if (next === undefined) break;
    requests.push(next.message as RegionRequest);
  }
  port.postMessage(answer(requests));
  Atomics.add(answers, 0, 1);
});
