/** The device side's worker thread in Node: an event loop between the processors' doorbell, the API's messages and the disks. */
import { performance } from "node:perf_hooks";
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { DeviceSpec, FromDevices, NetworkSpec, PlainError, ToDevices } from "../../vm/device-messages.js";
import { DeviceSide } from "../../vm/device-side.js";
import type { MachineDisks } from "../../vm/machine-disks.js";
import { DiskFileError } from "./disk-file-error.js";
import { openMachineDisks } from "./machine-disks.js";
import { networkError, type OpenNetwork, openMachineNetwork } from "./machine-network.js";
import { monotonicClock } from "./monotonic-clock.js";

export interface DeviceWorkerData {
  readonly spec: DeviceSpec;
  /** To networks that are shared, by adapter. */
  readonly cables: readonly (MessagePort | undefined)[];
}

const port = parentPort!;
const { spec, cables } = workerData as DeviceWorkerData;
const post = (message: FromDevices, transfer: readonly ArrayBuffer[] = []): void =>
  port.postMessage(message, [...transfer]);
/** The event loop gets a turn after this much work in a row: fsync's answers, promises. */
const IN_A_ROW_MS = 4;
/**
 * After work, the thread blocks on the doorbell for this long before it goes back to the event loop: being woken through the event
 * loop costs some 40 us, blocked on the word itself some 5 us, and guests ask again soon. Messages ring the doorbell too.
 */
const BLOCK_MS = 2;
const LONGEST_WAIT_MS = 60_000;
/**
 * So long after a frame there is traffic: sockets speak to the event loop alone, so it gets a turn more often. (Waiting in the event
 * loop itself made each doorbell of the guest's cost 90 us on its own thread: that of a waiter that is no blocked thread.)
 */
const TRAFFIC_MS = 10;
const TRAFFIC_IN_A_ROW_MS = 0.5;
const TRAFFIC_BLOCK_MS = 0.2;

let side: DeviceSide | undefined;
let disks: MachineDisks | undefined;
/** What the adapters are plugged in to, by number, for all of the machine's boots; undefined: nothing. */
const networks = new Map<number, { readonly spec: NetworkSpec; readonly open: OpenNetwork | undefined }>();
let isInTurn = false;
let clock: ReturnType<typeof monotonicClock> | undefined;
/** Counts machines: the loop of one that has gone ends. */
let generation = 0;

type WaitAsync = (
  words: Int32Array,
  index: number,
  value: number,
  timeoutMs: number,
) => { async: boolean; value: string | Promise<string> };
/** In Node since 16; not in the library types of this target. */
const waitAsync = (Atomics as unknown as { waitAsync: WaitAsync }).waitAsync;

/** ms that this thread has worked. */
let busyMs = 0;

async function loop(mine: number, machine: DeviceSide): Promise<void> {
  const { words, index } = machine.door.doorbell;
  let sinceLoop = performance.now();
  let traffic = 0;
  let trafficAt = 0;
  for (;;) {
    const from = performance.now();
    const seen = Atomics.load(words, index);
    for (let m = receiveMessageOnPort(port); m !== undefined; m = receiveMessageOnPort(port))
      take(m.message as ToDevices);
    if (mine !== generation) return;
    isInTurn = true;
    const more = machine.turn();
    isInTurn = false;
    machine.flushTrace();
    const now = performance.now();
    let activity = 0;
    for (const { open } of networks.values()) activity += open?.network.activity ?? 0;
    if (activity !== traffic) {
      traffic = activity;
      trafficAt = now;
    }
    busyMs += now - from;
    const isTraffic = traffic > 0 && now - trafficAt <= TRAFFIC_MS;
    const inARow = now - sinceLoop < (isTraffic ? TRAFFIC_IN_A_ROW_MS : IN_A_ROW_MS);
    if (more && inARow) continue;
    const waitMs = Math.min(Math.max(0, (machine.nextDeadline() - clock!.now()) / 1e6), LONGEST_WAIT_MS);
    if (!more && disks?.isBusy !== true && inARow) {
      const blockMs = Math.min(waitMs, isTraffic ? TRAFFIC_BLOCK_MS : BLOCK_MS);
      if (blockMs <= 0 || Atomics.wait(words, index, seen, blockMs) !== "timed-out") continue;
    }
    if (more || !inARow || (isTraffic && disks?.isBusy !== true)) await new Promise((resolve) => setImmediate(resolve));
    else {
      const wait = waitAsync(words, index, seen, waitMs);
      if (wait.async) await wait.value;
    }
    sinceLoop = performance.now();
  }
}
function ring(): void {
  if (side === undefined) return;
  const { words, index } = side.door.doorbell;
  Atomics.add(words, index, 1);
  Atomics.notify(words, index);
}
/** Something outside of a turn needs one: a frame, a deadline. */
function wake(): void {
  if (!isInTurn) ring();
}

function receive(m: ToDevices): void {
  if (m.type === "machine") {
    clock = monotonicClock(m.time);
    side = new DeviceSide({
      spec,
      memory: m.memory,
      ramBytes: m.ramBytes,
      clock,
      wallClockMs: Date.now,
      busyMs: () => busyMs,
      post,
      wake,
      ...(disks === undefined ? {} : { disks }),
      adapters: [...networks].map(([n, { spec: adapter, open }]) => [n, { spec: adapter, plug: open?.network }]),
      ...(m.saved === undefined ? {} : { saved: m.saved }),
    });
    const mine = ++generation;
    loop(mine, side).catch(fail);
    return;
  }
  if (m.type === "add-disk" || m.type === "remove-disk") {
    const asked = m.type === "add-disk" ? disks!.add(m.disk) : disks!.remove(m.lun);
    asked
      .then(
        (lun) => post({ type: "disk-answer", id: m.id, ...(lun === undefined ? {} : { lun }) }),
        (error: unknown) => post({ type: "disk-answer", id: m.id, error: plain(error) }),
      )
      .then(ring, fail);
    return;
  }
  if (m.type === "add-adapter" || m.type === "remove-adapter") {
    const asked = m.type === "add-adapter" ? addAdapter(m) : Promise.resolve(removeAdapter(m.number));
    asked
      .then(
        (done) => post({ type: "network-answer", id: m.id, done }),
        (error: unknown) => post({ type: "network-answer", id: m.id, error: plain(error) }),
      )
      .then(ring, fail);
    return;
  }
  if (m.type === "publish" || m.type === "unpublish" || m.type === "allow") {
    configure(m);
    return;
  }
  if (m.type === "close") {
    generation++;
    side = undefined;
    for (const { open } of networks.values()) open?.close();
    disks!.close().then(() => post({ type: "closed" }), fail);
    return;
  }
  if (m.type === "thaw" && m.time !== undefined) clock?.rebase(m.time);
  side?.receive(m);
}
async function addAdapter(m: Extract<ToDevices, { type: "add-adapter" }>): Promise<boolean> {
  await plugIn(m.number, m.spec, m.cable as MessagePort | undefined);
  side?.addAdapter(m.number, { spec: m.spec, plug: networks.get(m.number)?.open?.network });
  return true;
}
function removeAdapter(n: number): boolean {
  const had = networks.get(n);
  networks.delete(n);
  side?.removeAdapter(n);
  had?.open?.close();
  return had !== undefined;
}
async function plugIn(n: number, adapter: NetworkSpec, cable: MessagePort | undefined): Promise<void> {
  const shares = n === 0 ? (spec.shares ?? []) : [];
  const open = adapter.isPluggedIn
    ? await openMachineNetwork(adapter, shares, { onProblem, onShareChanged, onShareScanned, onWork: wake, cable })
    : undefined;
  networks.set(n, { spec: adapter, open });
}
function configure(m: Extract<ToDevices, { type: "publish" | "unpublish" | "allow" }>): void {
  const { id } = m;
  const answer = async (): Promise<void> => {
    const open = networks.get(0)?.open?.network;
    if (open === undefined) throw new Error("this machine's adapter is not plugged in");
    if (m.type === "publish") post({ type: "network-answer", id, port: await open.publish(m.spec) });
    else if (m.type === "unpublish") post({ type: "network-answer", id, done: open.unpublish(m.port) });
    else {
      open.setAllowed(m.list);
      post({ type: "network-answer", id });
    }
  };
  answer().catch((error: unknown) => post({ type: "network-answer", id, error: plain(error) }));
}
function plain(error: unknown): PlainError {
  if (error instanceof DiskFileError) return { code: error.code, message: error.message, hint: error.hint };
  const ofNetwork = networkError(error);
  if (ofNetwork !== undefined) return ofNetwork;
  return {
    code: "invariant",
    message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    hint: "",
  };
}
function fail(error: unknown): void {
  post({ type: "failed", error: plain(error) });
}

function take(m: ToDevices): void {
  try {
    receive(m);
  } catch (error) {
    fail(error);
  }
}
port.on("message", (m: ToDevices) => {
  take(m);
  ring();
});
const onShareChanged = (share: number, paths: readonly Uint8Array[]): void =>
  post({ type: "share-changed", share, paths });
const onShareScanned = (share: number, path: Uint8Array, from: Uint8Array | undefined): void =>
  post({ type: "share-scanned", share, path, ...(from === undefined ? {} : { from }) });
const onProblem = (text: string): void => post({ type: "problem", text });
async function open(): Promise<void> {
  const adapters = spec.network === undefined ? [] : [spec.network, ...(spec.adapters ?? [])];
  for (const [n, adapter] of adapters.entries()) await plugIn(n, adapter, cables[n]);
  disks = await openMachineDisks(spec.disks, {
    inline: false,
    onProblem,
    // its completion is in the ring, and the guest must be told
    onCompleted: ring,
  });
  post({ type: "started" });
}
open().catch(fail);
