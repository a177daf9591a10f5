/** A processor's worker thread in Node: port, clock and entropy for vm/processor-thread. */
import { randomBytes } from "node:crypto";
import { parentPort, receiveMessageOnPort } from "node:worker_threads";
import type { ProcessorStart, ToProcessor } from "../../vm/messages.js";
import { ProcessorThread, runProcessor } from "../../vm/processor-thread.js";
import { takeBranchHints } from "./engine-flags.js";
import { monotonicClock } from "./monotonic-clock.js";
import { trim } from "./trim.js";
import { WorkerCompiler } from "./worker-compiler.js";

takeBranchHints();

const port = parentPort!;
const pool = new Int32Array(256);
let used = pool.length;
const entropy = {
  next(): number {
    if (used === pool.length) {
      new Uint8Array(pool.buffer).set(randomBytes(pool.byteLength));
      used = 0;
    }
    return pool[used++]!;
  },
  state: undefined,
  restore(): void {},
};
// the first message is the start; everything after it is taken by the loop
port.once("message", (start: ProcessorStart) => {
  const clock = monotonicClock(start.time);
  const thread = new ProcessorThread(
    start,
    {
      post: (message, transfer) => port.postMessage(message, [...transfer]),
      receive: () => receiveMessageOnPort(port)?.message as ToProcessor | undefined,
    },
    clock,
    entropy,
    (base) => clock.rebase(base),
    (constants) => new WorkerCompiler(constants, true),
  );
  const { control, cpuLimit } = start;
  // out of the handler, so that the start's images are nobody's any more
  setImmediate(() => {
    trim();
    try {
      runProcessor(thread, control, cpuLimit);
    } catch (error) {
      thread.postLastRecords();
      thread.partition.hypervisor?.stop();
      throw error;
    }
    // This thread waits to be ended by the one that it has told: a machine was seen, once, that never came to its end when both ended
    // it at the same time, the compiler's thread below it too.
    port.ref();
  });
});
