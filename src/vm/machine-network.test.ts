/** A machine's network with scripted guests and sockets: the machine's time, standing still, one machine after the other. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { ScriptedGuest } from "../net/scripted-guest.js";
import { seeded } from "../net/scripted-network.js";
import { type FarEnd, World } from "../net/scripted-outside.js";
import type { NetworkSpec } from "./device-messages.js";
import { MachineNetwork } from "./machine-network.js";

const SPEC: NetworkSpec = { mac: "00:15:5d:00:00:01", isPluggedIn: true, publish: [] };

function machine(spec: NetworkSpec = SPEC, sink?: (bytes: Uint8Array) => void) {
  const world = new World();
  const random32 = seeded(3);
  let woken = 0;
  const network = new MachineNetwork({
    spec,
    backend: world.outside,
    random32,
    onWork: () => woken++,
    ...(sink === undefined ? {} : { capture: { sink, epochNs: 0 } }),
  });
  /** Starts a machine whose clock shows `from` now. */
  const start = (from: number): ScriptedGuest => {
    const offset = world.time - from;
    const clock = { now: () => world.time - offset };
    const guest = new ScriptedGuest(network.port, clock.now, random32);
    network.attach(clock);
    world.actors.splice(1);
    world.actors.push(guest);
    world.timed.length = 0;
    const shifted = (t: { nextDeadline(): number; runDue(now: number): void }) => ({
      nextDeadline: () => t.nextDeadline() + offset,
      runDue: (now: number) => t.runDue(now - offset),
    });
    world.timed.push(shifted(network), shifted(guest));
    return guest;
  };
  return { world, network, start, woken: () => woken };
}

it("a server outside is reached, whatever the machine's clock shows", () => {
  for (const from of [0, 5e9, 7e15]) {
    const { world, start } = machine();
    let far: FarEnd | undefined;
    world.outside.tcp.set("192.0.2.1:80", (end) => {
      far = end;
      end.write(new TextEncoder().encode("hello"));
    });
    const c = start(from).connect("192.0.2.1", 80);
    assert.ok(
      world.run(1e9, () => c.bytes === 5),
      `from ${from}`,
    );
    assert.ok(far !== undefined);
  }
});

it("nothing reaches a machine that stands still, and what waits comes when it goes on", () => {
  const { world, network, start } = machine();
  let far: FarEnd | undefined;
  world.outside.tcp.set("192.0.2.1:80", (end) => {
    far = end;
  });
  const guest = start(0);
  const c = guest.connect("192.0.2.1", 80);
  assert.ok(world.run(1e9, () => c.connected && far !== undefined));
  const frames = guest.frameCount;
  network.isHeld = true;
  far!.write(new Uint8Array(100_000));
  world.settle();
  assert.deepEqual([c.bytes, guest.frameCount], [0, frames]);
  network.isHeld = false;
  assert.ok(world.run(5e9, () => c.bytes === 100_000));
});

it("connections end with their machine; leases and time go on", () => {
  const { world, network, start } = machine();
  let far: FarEnd | undefined;
  world.outside.tcp.set("192.0.2.1:80", (end) => {
    far = end;
  });
  const c = start(0).connect("192.0.2.1", 80);
  assert.ok(world.run(1e9, () => c.connected));
  assert.equal(network.status().flows.length, 1);
  const first = far;
  const next = start(0);
  assert.equal(network.status().flows.length, 0);
  const again = next.connect("192.0.2.1", 80);
  assert.ok(world.run(1e9, () => again.connected && far !== first));
  assert.ok(first!.dropped);
});

it("ports listen from before the first machine on, and tell which", async () => {
  const { network, world } = machine();
  const soon = network.publish({ protocol: "tcp", hostPort: 8080, guestPort: 80 });
  world.settle();
  const port = await soon;
  assert.deepEqual([port.host, port.guest], ["127.0.0.1:8080", "10.0.2.15:80"]);
  assert.deepEqual(
    network.status().published.map((p) => p.id),
    [port.id],
  );
  const bad = network.publish({ protocol: "tcp", hostPort: 1, guestPort: 0 });
  await assert.rejects(bad, { code: "bad-port" });
  assert.equal(network.unpublish(port.id), true);
});

it("a capture has the frames of both directions", () => {
  const blocks: Uint8Array[] = [];
  const { world, start } = machine(SPEC, (bytes) => blocks.push(bytes));
  start(0).askArp("10.0.2.2");
  world.settle();
  const types = blocks.map((b) => new DataView(b.buffer, b.byteOffset).getUint32(0, true));
  assert.deepEqual(types.slice(0, 2), [0x0a0d0d0a, 1]);
  assert.ok(types.filter((t) => t === 6).length >= 2);
});
