/**
 * No wake-up is lost, however guest and host interleave. Guest threads are generators that stop at each atomic access; they go on
 * between the host's calls and inside them, before each of the host's atomic accesses.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { PacketType } from "./device.js";
import { ScriptedDevice } from "./scripted-device.js";
import { type GuestChannel, ScriptedGuest } from "./scripted-guest.js";
import { packetBytes } from "./scripted-ring.js";

/** "blocked": waits for an interrupt. */
type Step = "stepped" | "blocked";
type Thread = Generator<Step, void, void>;

interface Machine {
  readonly channel: GuestChannel;
  /** The guest's calls of SignalEvent, on their way to the host. */
  signals: number;
  /** Interrupts that each thread has not looked at. */
  wakeProducer: boolean;
  wakeConsumer: boolean;
}

function* producer(m: Machine, sizes: readonly number[]): Thread {
  const ring = m.channel.out;
  for (const [i, size] of sizes.entries()) {
    const packet = packetBytes(new Uint8Array(size), { type: 6, flags: 1, transactionLow: i, transactionHigh: 0 });
    for (;;) {
      const free = ring.free;
      yield "stepped";
      if (free > packet.length + 8) break;
      m.wakeProducer = false;
      ring.store(12, packet.length + 8);
      yield "stepped";
      if (ring.free > packet.length + 8) break;
      while (!m.wakeProducer) yield "blocked";
    }
    const old = ring.write;
    ring.putBytes(old, packet);
    ring.putBytes(old + packet.length, new Uint8Array(8));
    yield "stepped";
    ring.store(0, (old + packet.length + 8) % ring.size);
    ring.store(12, 0);
    yield "stepped";
    const { mask } = ring;
    yield "stepped";
    if (mask === 0 && ring.read === old) m.signals++;
  }
}

function* consumer(m: Machine, count: number, seen: number[]): Thread {
  const ring = m.channel.in;
  while (seen.length < count) {
    while (!m.wakeConsumer) yield "blocked";
    m.wakeConsumer = false;
    do {
      ring.store(8, 1);
      yield "stepped";
      while (ring.read !== ring.write) {
        const taken = ring.consume()!;
        seen.push(taken.packet.transactionLow);
        yield "stepped";
        if (taken.signal) m.signals++;
      }
      ring.store(8, 0);
      yield "stepped";
    } while (ring.read !== ring.write);
  }
}

/** Runs the host with `between` before each of its atomic accesses. */
function interleaved<T>(between: () => void, host: () => T): T {
  const atomics = Atomics as { load: unknown; store: unknown };
  const { load, store } = Atomics;
  const original = { load, store };
  const before =
    (access: (...args: never[]) => unknown) =>
    (...args: never[]): unknown => {
      Object.assign(atomics, original);
      between();
      Object.assign(atomics, hooked);
      return access(...args);
    };
  const hooked = { load: before(load as never), store: before(store as never) };
  Object.assign(atomics, hooked);
  try {
    return host();
  } finally {
    Object.assign(atomics, original);
  }
}

describe("VMBus signalling", () => {
  it("loses no wake-up, whatever the order of steps", () => {
    let blockedOnce = 0;
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.nat(200), fc.nat(1800), fc.integer({ min: 3000, max: 4000 })), {
          minLength: 5,
          maxLength: 40,
        }),
        fc.integer(),
        fc.integer({ min: 1, max: 5 }),
        (sizes, seed, perRun) => {
          let x = seed | 0 || 1;
          const random = (n: number): number => {
            x ^= x << 13;
            x ^= x >>> 17;
            x ^= x << 5;
            return (x >>> 0) % n;
          };
          const guest = new ScriptedGuest({ bytes: 1 << 20 });
          const device = new ScriptedDevice(1);
          device.keep = false;
          // Answers of another size than the question, so that one ring or the other is the narrow one.
          device.echo = false;
          device.onPacket = (packet) =>
            device.send({
              type: PacketType.completion,
              flags: 0,
              transactionLow: packet.transactionLow,
              transactionHigh: 0,
              payload: new Uint8Array((packet.payloadLength * 7) % 4000),
              payloadLength: (packet.payloadLength * 7) % 4000,
            });
          guest.server.offer(device);
          guest.connect();
          const channel = guest.open(device.offer.classId, { ringPages: 2 });
          guest.turn();
          const m: Machine = { channel, signals: 0, wakeProducer: false, wakeConsumer: false };
          const seen: number[] = [];
          const threads = [producer(m, sizes), consumer(m, sizes.length, seen)];
          const done = [false, false];
          const step = (i: number): boolean => {
            if (done[i]) return false;
            const r = threads[i]!.next();
            if (r.done === true) done[i] = true;
            return r.value !== "blocked";
          };
          const interrupts = (): void => {
            if (guest.synic.flags.size === 0) return;
            guest.synic.flags.clear();
            m.wakeProducer = true;
            m.wakeConsumer = true;
          };
          let isLeft = true;
          for (;;) {
            interrupts();
            if (random(2) === 0) {
              const stepped = step(random(2));
              if (stepped) continue;
            }
            for (; m.signals > 0; m.signals--) guest.server.onSignal(channel.relid);
            isLeft = interleaved(
              () => {
                for (let n = random(4); n > 0; n--) step(random(2));
              },
              () => guest.server.run(perRun),
            );
            guest.server.flush();
            if (isLeft || m.signals > 0 || guest.synic.flags.size > 0) continue;
            // The host sleeps. So the guest must be able to go on by itself.
            if (step(0) || step(1)) continue;
            blockedOnce++;
            if (m.signals > 0 || guest.synic.flags.size > 0) continue;
            break;
          }
          assert.deepEqual(done, [true, true], "guest and host wait for each other");
          assert.deepEqual(
            seen,
            sizes.map((_, i) => i),
          );
          assert.equal(guest.server.channels()[0]?.state, "open");
        },
      ),
      { numRuns: 400 },
    );
    assert.ok(blockedOnce >= 400);
  });
});
