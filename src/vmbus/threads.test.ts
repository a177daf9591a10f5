/** Host and guest on threads of their own over the same memory: packets arrive intact and nobody waits for ever. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { GuestMemory, UNWATCHED } from "../machine/guest-memory.js";
import { ScriptedDevice } from "./scripted-device.js";
import { ScriptedGuest } from "./scripted-guest.js";
import { GuestRing, packetBytes } from "./scripted-ring.js";

const PACKETS = 20_000;
/** Words that the threads share: the guest's signals, the host's, the guest's result (packets that were right). */
const [DOORBELL, INTERRUPT, RESULT] = [0, 1, 2] as const;
const PATIENCE_MS = 20_000;

interface Shared {
  readonly ram: Uint8Array<SharedArrayBuffer>;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly out: readonly number[];
  readonly in: readonly number[];
}

function payloadOf(i: number): Uint8Array {
  return new Uint8Array((i * 37) % 500).fill(i);
}

function guestThread({ ram, words, ...pages }: Shared): void {
  const memory = new GuestMemory(ram, UNWATCHED);
  const out = new GuestRing(memory, pages.out);
  const back = new GuestRing(memory, pages.in);
  const signal = (): void => {
    Atomics.add(words, DOORBELL, 1);
    Atomics.notify(words, DOORBELL);
  };
  const produce = (i: number): boolean => {
    const packet = packetBytes(payloadOf(i), { type: 6, flags: 1, transactionLow: i, transactionHigh: 0 });
    let wakes = out.produce(packet);
    if (wakes === undefined) {
      out.store(12, packet.length + 8);
      wakes = out.produce(packet);
      if (wakes === undefined) return false;
      out.store(12, 0);
    }
    if (wakes) signal();
    return true;
  };
  let sent = 0;
  let seen = 0;
  while (seen < PACKETS) {
    const before = Atomics.load(words, INTERRUPT);
    const done = sent + seen;
    while (sent < PACKETS && produce(sent)) sent++;
    do {
      back.store(8, 1);
      for (let taken = back.consume(); taken !== undefined; taken = back.consume()) {
        if (taken.signal) signal();
        const expected = payloadOf(seen);
        const { packet } = taken;
        if (packet.transactionLow !== seen || expected.some((byte, i) => packet.payload[i] !== byte)) return;
        seen++;
        Atomics.store(words, RESULT, seen);
      }
      back.store(8, 0);
    } while (back.read !== back.write);
    if (sent + seen === done && Atomics.wait(words, INTERRUPT, before, PATIENCE_MS) === "timed-out") return;
  }
  signal();
}

if (!isMainThread) guestThread(workerData as Shared);
else
  describe("VMBus between threads", () => {
    it("loses nothing", async () => {
      const guest = new ScriptedGuest({ bytes: 1 << 20 });
      const device = new ScriptedDevice(1);
      device.keep = false;
      guest.server.offer(device);
      guest.connect();
      const channel = guest.open(device.offer.classId, { ringPages: 2, inRingPages: 3 });
      guest.turn();
      const words = new Int32Array(new SharedArrayBuffer(16));
      guest.synic.signal = () => {
        Atomics.add(words, INTERRUPT, 1);
        Atomics.notify(words, INTERRUPT);
      };
      const ram = guest.memory.ram as Uint8Array<SharedArrayBuffer>;
      const shared: Shared = { ram, words, out: channel.out.pages, in: channel.in.pages };
      const worker = new Worker(new URL(import.meta.url), { workerData: shared });
      const ended = new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject));
      await new Promise((resolve) => worker.on("online", resolve));
      let heard = 0;
      while (Atomics.load(words, RESULT) < PACKETS) {
        const now = Atomics.load(words, DOORBELL);
        if (now !== heard) guest.server.onSignal(channel.relid);
        heard = now;
        const isLeft = guest.server.run(16);
        guest.server.flush();
        if (!isLeft && Atomics.wait(words, DOORBELL, heard, PATIENCE_MS) === "timed-out") break;
      }
      await ended;
      assert.equal(Atomics.load(words, RESULT), PACKETS);
      const [status] = guest.server.channels();
      assert.deepEqual([status?.packetsIn, status?.packetsOut, status?.state], [PACKETS, PACKETS, "open"]);
    });
  });
