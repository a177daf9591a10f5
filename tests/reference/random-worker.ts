/** The thread of the random test: it can be stopped even when the engine does not come back. */
import { parentPort, workerData } from "node:worker_threads";
import { type RandomRun, runRandom } from "./random-run.js";

const { run, progress } = workerData as { readonly run: RandomRun; readonly progress: SharedArrayBuffer };
parentPort!.postMessage(runRandom(run, new Int32Array(progress)));
