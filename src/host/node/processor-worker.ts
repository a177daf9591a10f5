/** A processor's worker thread in Node: port, clock and entropy for vm/processor-thread. */
import { randomBytes } from "node:crypto";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { ProcessorStart, ToProcessor } from "../../vm/messages.js";
import { runProcessor } from "../../vm/processor-thread.js";

const start = workerData as ProcessorStart;
const port = parentPort!;
/** process.hrtime is process-wide: performance.now() in a worker starts with the worker. */
const origin = process.hrtime();
const base = start.spec.saved?.timeNs ?? 0;
const clock = {
  now(): number {
    const [s, ns] = process.hrtime();
    return base + (s - origin[0]) * 1e9 + (ns - origin[1]);
  },
};
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
runProcessor(
  start,
  {
    post: (message, transfer) => port.postMessage(message, [...transfer]),
    receive: () => receiveMessageOnPort(port)?.message as ToProcessor | undefined,
  },
  clock,
  entropy,
);
port.close();
