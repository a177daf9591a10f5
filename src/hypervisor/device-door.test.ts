/** The queues between processors and device side: by hand, in any interleaving, and between threads. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import fc from "fast-check";
import { DeviceDoor } from "./device-door.js";
import { HvMsr, PartitionArea, ScriptedProcessor, SynicArea } from "./scripted-processor.js";
import {
  AREA_BYTES,
  Attention,
  hvAreas,
  MAX_HOST_WRITES,
  POSTED_BYTES,
  POSTED_SLOTS,
  QUEUE_SLOTS,
  queueNext,
  queueUsed,
} from "./shared-areas.js";

const WORDS = { synic: 0, posted: AREA_BYTES, partition: AREA_BYTES + POSTED_BYTES };
const BYTES = AREA_BYTES * 2 + POSTED_BYTES;
/** Host writes that the threads' test does. */
const WRITES = 2000;
const PATIENCE_MS = 20_000;

/** The device side of the test between threads: writes to pages with code, and waits each time. */
function deviceThread(shared: SharedArrayBuffer): void {
  const areas = hvAreas(shared, WORDS);
  const door = new DeviceDoor([areas], () => Atomics.notify(areas.synic, SynicArea.attention >> 2));
  const watcher = door.codeWatcher(new Int32Array(64).fill(1));
  for (let i = 0; i < WRITES; i++) {
    // flags and messages in between, as in life
    door.signal(0, 2, 1 + (i % 2000));
    watcher.written((i % 32) * 4096, 1);
    watcher.settle();
    if (areas.partition[PartitionArea.crash >> 2] !== i + 1) return;
  }
}

if (!isMainThread) deviceThread(workerData as SharedArrayBuffer);
else {
  describe("counters of a queue", () => {
    it("tell full from empty, and give each slot in turn, however often they go round", () => {
      for (const slots of [QUEUE_SLOTS, POSTED_SLOTS]) {
        let [head, tail] = [0, 0];
        assert.equal(queueUsed(head, tail, slots), 0);
        for (let i = 0; i < slots * 5; i++) {
          assert.equal(tail % slots, i % slots);
          tail = queueNext(tail, slots);
          assert.equal(queueUsed(head, tail, slots), 1 + Math.min(i, slots - 1));
          if (queueUsed(head, tail, slots) === slots) {
            assert.equal(head % slots, tail % slots);
            head = queueNext(head, slots);
          }
          if (i < slots - 1) continue;
          tail = head;
          for (let k = 1; k < slots; k++) tail = queueNext(tail, slots);
        }
      }
    });
  });

  describe("messages to a processor", () => {
    it("wait up to the queue's bound; then there is a ring when there is room", () => {
      const p = new ScriptedProcessor();
      p.enableSynic();
      const { words, index } = p.door.doorbell;
      for (let i = 0; i < QUEUE_SLOTS; i++) assert.ok(p.post(i));
      assert.ok(!p.post(99));
      assert.ok(!p.post(99));
      const rings = words[index]!;
      p.hypervisor.poll();
      assert.equal(words[index], rings + 1);
      assert.ok(p.post(QUEUE_SLOTS));
      assert.ok(!p.post(99));
      const seen: number[] = [];
      for (let m = p.takeMessage(2); m !== undefined; m = p.takeMessage(2)) {
        seen.push(m.payload[0]!);
        p.hypervisor.poll();
      }
      assert.deepEqual(
        seen,
        Array.from({ length: QUEUE_SLOTS + 1 }, (_, i) => i),
      );
      assert.equal(words[index], rings + 2);
      p.checkCanaries();
    });
    it("wake it each time, and take only the bytes that are the message's", () => {
      const p = new ScriptedProcessor();
      p.enableSynic();
      p.door.post(
        0,
        2,
        1,
        Uint8Array.from({ length: 300 }, (_, i) => i),
        7,
      );
      p.door.signal(0, 2, 9);
      assert.equal(p.wakes, 2);
      p.hypervisor.poll();
      assert.deepEqual([...p.slot(2).payload], [0, 1, 2, 3, 4, 5, 6]);
      assert.equal(p.door.processors, 1);
    });
    it("are neither lost, nor doubled, nor out of order, in any interleaving; a wish for room is always rung for", () => {
      const step = fc.constantFrom("post", "post", "post", "poll", "take", "clear", "eom", "off", "on", "timer");
      fc.assert(
        fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
          const p = new ScriptedProcessor();
          p.enableSynic();
          p.wr(HvMsr.STIMER0_CONFIG, 0x20000);
          const { words, index } = p.door.doorbell;
          let posted = 0;
          let refusedAt: number | undefined;
          const seen: number[] = [];
          const see = (m: { type: number; payload: Uint8Array } | undefined): void => {
            if (m?.type === 1) seen.push(m.payload[0]! + m.payload[1]! * 256);
          };
          const post = (): void => {
            const before = words[index]!;
            if (p.door.post(0, 2, 1, Uint8Array.of(posted, posted >> 8), 2)) {
              posted++;
              refusedAt = undefined;
            } else refusedAt ??= before;
          };
          const todo: Record<(typeof steps)[number], () => void> = {
            post,
            poll: () => p.hypervisor.poll(),
            take: () => see(p.takeMessage(2)),
            // as a guest between clearing the type and looking at the flag
            clear: () => {
              const { type, payload } = p.slot(2);
              p.memory.writeU32(0x3200, 0);
              if (type !== 0) see({ type, payload });
            },
            eom: () => p.wr(HvMsr.EOM, 0),
            off: () => p.wr(HvMsr.SCONTROL, 0),
            on: () => p.wr(HvMsr.SCONTROL, 1),
            timer: () => p.hypervisor.synic.timerExpired(0, 5),
          };
          for (const s of steps) {
            todo[s]();
            const head = p.areas.synic[SynicArea.queueHead >> 2]!;
            const used = queueUsed(head, p.areas.synic[SynicArea.queueTail >> 2]!, QUEUE_SLOTS);
            assert.ok(used <= QUEUE_SLOTS);
            if (refusedAt !== undefined && used < QUEUE_SLOTS) {
              assert.notEqual(words[index], refusedAt, "the device side was told of the room");
              refusedAt = undefined;
            }
          }
          p.wr(HvMsr.SCONTROL, 1);
          p.hypervisor.poll();
          for (let i = 0; i < 20; i++) {
            see(p.takeMessage(2));
            p.wr(HvMsr.EOM, 0);
          }
          assert.deepEqual(
            seen,
            Array.from({ length: posted }, (_, i) => i),
          );
          assert.equal(p.slot(2).type, 0);
          p.checkCanaries();
        }),
        { numRuns: 400 },
      );
    });
    it("go to the processor that is named", () => {
      const a = new ScriptedProcessor();
      const b = new ScriptedProcessor();
      b.enableSynic();
      const woken: number[] = [];
      const door = new DeviceDoor([a.areas, b.areas], (vp) => woken.push(vp));
      assert.equal(door.processors, 2);
      door.post(1, 2, 1, Uint8Array.of(3), 1);
      door.signal(1, 2, 5);
      assert.deepEqual(woken, [1, 1]);
      b.hypervisor.poll();
      assert.equal(b.slot(2).payload[0], 3);
      assert.equal(a.areas.synic[SynicArea.queueTail >> 2], 0);
    });
  });

  describe("messages from processors", () => {
    it("are taken from each, in its order, while they are accepted", () => {
      const a = new ScriptedProcessor();
      const b = new ScriptedProcessor();
      const input = new Uint8Array(256);
      for (const p of [a, b]) {
        p.enableHypercalls();
        for (let n = 0; n < 70; n++) {
          input.set([4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, p === a ? 0 : 1, n]);
          assert.equal(p.call({ code: 0x5c, input }).status, n < POSTED_SLOTS ? 0 : 0x13);
        }
      }
      const door = new DeviceDoor([a.areas, b.areas], () => {});
      const seen: number[][] = [];
      let room = 100;
      const take = (): void =>
        door.takeMessages(
          () => room-- > 0,
          (payload, length) => seen.push([...payload.subarray(0, length)]),
        );
      take();
      assert.equal(seen.length, 100);
      room = 100;
      take();
      assert.deepEqual(
        seen,
        [0, 1].flatMap((vp) => Array.from({ length: POSTED_SLOTS }, (_, n) => [vp, n])),
      );
    });
  });

  describe("host writes to pages with code", () => {
    const settled = (writes: (w: ReturnType<DeviceDoor["codeWatcher"]>) => void, decoded: readonly number[]) => {
      const p = new ScriptedProcessor();
      const lineMasks = new Int32Array(2 * 4096);
      for (const page of decoded) lineMasks[page * 2 + (page & 1)] = 1 << 31;
      const door = new DeviceDoor([p.areas], () => p.hypervisor.poll());
      const watcher = door.codeWatcher(lineMasks);
      writes(watcher);
      return { p, watcher };
    };
    it("tell the processor which pages, once each, and wait for it", () => {
      const { p, watcher } = settled(
        (w) => {
          assert.equal(w.written(0x3000, 4096), true);
          assert.equal(w.written(0x3ff8, 16), true);
          assert.equal(w.written(0x4ff8, 8), true);
        },
        [3, 4, 9],
      );
      assert.deepEqual(p.hostWrites, []);
      watcher.settle();
      assert.deepEqual(p.hostWrites, [[3, 4]]);
      watcher.settle();
      assert.equal(p.hostWrites.length, 1);
      assert.equal(watcher.written(0x9123, 1), true);
      watcher.settle();
      assert.deepEqual(p.hostWrites, [[3, 4], [9]]);
    });
    it("do not stop anybody where nothing was decoded", () => {
      const { p, watcher } = settled(
        (w) => {
          assert.equal(w.written(0x5000, 0x4000), false);
          assert.equal(w.written(0x2fff, 1), false);
        },
        [3, 4, 9],
      );
      watcher.settle();
      assert.deepEqual([p.hostWrites, p.areas.partition[PartitionArea.writesAsked >> 2]], [[], 0]);
    });
    it("are told in parts where they are more than the list holds", () => {
      const pages = Array.from({ length: MAX_HOST_WRITES + 10 }, (_, i) => i);
      const { p, watcher } = settled((w) => assert.equal(w.written(0, pages.length * 4096), true), pages);
      watcher.settle();
      assert.deepEqual(
        p.hostWrites.map((w) => w.length),
        [MAX_HOST_WRITES, 10],
      );
      assert.deepEqual(p.hostWrites.flat(), pages);
      p.checkCanaries();
    });
    it("wait for no processor that has run for the last time", () => {
      const p = new ScriptedProcessor();
      const watcher = new DeviceDoor([p.areas], () => {}).codeWatcher(new Int32Array(8).fill(1));
      p.hypervisor.stop();
      assert.equal(watcher.written(0x1000, 8), true);
      watcher.settle();
      assert.deepEqual(p.hostWrites, []);
    });
    it("are seen by a processor on another thread, and nobody waits for ever", async () => {
      const shared = new SharedArrayBuffer(BYTES);
      const areas = hvAreas(shared, WORDS);
      const p = new ScriptedProcessor();
      // the processor of this thread, over the areas that are shared
      const { Hypervisor } = await import("./hypervisor.js");
      let seen = 0;
      const hypervisor = new Hypervisor({
        vpIndex: 0,
        areas,
        memory: p.memory,
        clock: { now: () => 0 },
        deadlines: { set: () => {}, register: () => {}, unregister: () => {} },
        trace: { record: () => {}, text: () => {} },
        targets: { processors: 1, flushTlb: () => {}, sendIpi: () => {} },
        processor: {
          eoi: () => {},
          writeIcr: () => {},
          readIcr: () => {},
          taskPriority: 0,
          idle: () => {},
          raise: () => {},
        },
        tscOffset: () => ({ low: 0, high: 0 }),
        onReset: () => {},
        onCrash: () => {},
        hostWrites: (pages, count) => {
          assert.deepEqual([count, pages[0]], [1, seen % 32]);
          seen++;
          areas.partition[PartitionArea.crash >> 2] = seen;
        },
      });
      const worker = new Worker(new URL(import.meta.url), { workerData: shared });
      const ended = new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject));
      await new Promise((resolve) => worker.on("online", resolve));
      for (;;) {
        hypervisor.poll();
        if (seen === WRITES) break;
        if (Atomics.load(areas.synic, SynicArea.attention >> 2) !== 0) continue;
        if (Atomics.wait(areas.synic, SynicArea.attention >> 2, 0, PATIENCE_MS) === "timed-out") break;
      }
      assert.equal(seen, WRITES);
      await ended;
      assert.equal(Atomics.load(areas.synic, SynicArea.attention >> 2) & Attention.hostWrites, 0);
    });
  });
}
