/** Data on a connection: any sizes in both directions, over the ends of rings, with either side slow. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { HvSocket } from "./hv-socket.js";
import { type GuestSocket, HostEnd, listen, SocketGuest } from "./scripted-guest.js";

const PORT = 5000;
const pattern = (from: number, length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => ((from + i) * 31 + ((from + i) >> 8)) & 0xff);
const connected = (ringPages = 6, inRingPages = ringPages) => {
  const g = new SocketGuest();
  const { ends } = listen(g.service, PORT);
  const guest = g.connect(PORT, 1024, { ringPages, inRingPages });
  const host = ends[0]!;
  return { g, guest, host, socket: host.socket! };
};
const raw = (guest: GuestSocket, g: SocketGuest, payload: Uint8Array, type = 6): void => {
  guest.channel.send(payload, { type });
  g.turn();
};
const header = (size: number, data = 0, type = 1): Uint8Array => {
  const out = new Uint8Array(8 + data).fill(9, 8);
  new DataView(out.buffer).setUint32(0, type, true);
  new DataView(out.buffer).setUint32(4, size, true);
  return out;
};

describe("a stream", () => {
  it("arrives whole in both directions, whatever the sizes and whoever is slow", () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant("guest writes" as const), n: fc.integer({ min: 1, max: 9000 }) }),
      fc.record({ do: fc.constant("host writes" as const), n: fc.integer({ min: 1, max: 40000 }) }),
      fc.record({ do: fc.constant("guest reads" as const), n: fc.integer({ min: 1, max: 9000 }) }),
      fc.record({ do: fc.constantFrom("pause" as const, "resume" as const, "turn" as const), n: fc.constant(0) }),
    );
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 2, max: 8 }),
        fc.integer({ min: 2, max: 8 }),
        (steps, ringPages, inRingPages) => {
          const { g, guest, host, socket } = connected(ringPages, inRingPages);
          let [guestSent, hostSent] = [0, 0];
          const guestGot: Uint8Array[] = [];
          for (const { do: what, n } of steps) {
            if (what === "guest writes") guestSent += guest.write(pattern(guestSent, n));
            else if (what === "host writes") {
              socket.write(pattern(hostSent, n));
              hostSent += n;
            } else if (what === "guest reads") guestGot.push(guest.read(n));
            else if (what === "pause") socket.pause();
            else if (what === "resume") socket.resume();
            else g.turn();
          }
          socket.resume();
          socket.end();
          for (let i = 0; i < 1000 && !guest.atEnd; i++) {
            g.turn();
            guestGot.push(guest.read());
          }
          g.turn();
          assert.ok(Buffer.from(host.bytes).equals(pattern(0, guestSent)), "to the host");
          assert.ok(Buffer.concat(guestGot).equals(pattern(0, hostSent)), "to the guest");
          assert.deepEqual([socket.bytesIn, socket.bytesOut], [guestSent, hostSent]);
          guest.fin();
          assert.equal(host.log.at(-1), "close well");
          assert.deepEqual(g.violations(), []);
        },
      ),
      { numRuns: 60 },
    );
  });
  it("has packets of 16 KiB at most, and of less than half of a small ring", () => {
    for (const [pages, largest] of [
      [64, 16384],
      [6, 5 * 2048 - 64],
      [2, 2048 - 64],
    ] as const) {
      const { g, guest, socket } = connected(pages);
      socket.write(new Uint8Array(100_000));
      g.turn();
      assert.equal(guest.read().length, largest);
    }
  });
  it("takes packets of up to 16 KiB, which is more than Linux sends", () => {
    const { g, guest, host } = connected(16);
    raw(guest, g, header(16384, 16384));
    assert.equal(host.received[0]?.length, 16384);
    raw(guest, g, header(3, 8));
    assert.deepEqual([...host.received[1]!], [9, 9, 9]);
  });
  it("gives the receiver bytes of its own", () => {
    const { g, guest, host } = connected();
    guest.write(pattern(0, 100));
    g.turn();
    guest.write(pattern(50, 100));
    g.turn();
    assert.deepEqual(host.received[0], pattern(0, 100));
    assert.equal(host.received[0]?.buffer.byteLength, 100);
  });
});

describe("a writer on the host", () => {
  it("is told to wait above 256 KiB, and to go on when half of it has left", () => {
    const { g, guest, host, socket } = connected(2);
    const piece = 64 << 10;
    let written = 0;
    do written += piece;
    while (socket.write(pattern(written - piece, piece)));
    assert.ok(written > 256 << 10 && written <= (256 << 10) + 2 * piece, `${written}`);
    let got = 0;
    while (!host.log.includes("drain")) {
      g.turn();
      const part = guest.readAll();
      assert.deepEqual(part, pattern(got, part.length));
      got += part.length;
    }
    const waiting = written - got;
    assert.ok(waiting <= 128 << 10 && waiting > (128 << 10) - 20_000, `${waiting}`);
    assert.ok(socket.write(pattern(written, 1)));
    assert.equal(host.log.filter((e) => e === "drain").length, 1);
  });
  it("may write in the call that tells it to", () => {
    const { g, guest, host, socket } = connected(2);
    let [written, drains] = [0, 0];
    const fill = (): void => {
      let more = true;
      while (more && written < 2_000_000) {
        more = socket.write(pattern(written, 50_000));
        written += 50_000;
      }
      if (written >= 2_000_000) socket.end();
    };
    host.onDrain = () => {
      drains++;
      fill();
    };
    fill();
    let got = 0;
    for (let i = 0; i < 5000 && !guest.atEnd; i++) {
      const part = guest.readAll();
      if (part[0] !== undefined) assert.equal(part[0], pattern(got, 1)[0]);
      got += part.length;
      g.turn();
    }
    assert.equal(got, 2_000_000);
    assert.ok(drains > 5);
  });
  it("writes nothing after its end, and nothing of nothing", () => {
    const { g, guest, socket } = connected();
    assert.equal(socket.write(new Uint8Array(0)), true);
    g.turn();
    assert.equal(guest.channel.in.write, 0);
    socket.end();
    socket.end();
    assert.equal(socket.write(pattern(0, 10)), true);
    g.turn();
    assert.ok(guest.atEnd);
  });
});

describe("a writer in the guest", () => {
  it("waits while the host does not read, and is signalled when it does", () => {
    const { g, guest, host, socket } = connected();
    socket.pause();
    let sent = 0;
    for (let n = 1; n > 0; sent += n) {
      n = guest.write(pattern(sent, 3000));
      g.turn();
    }
    assert.ok(sent > 15_000 && sent < 5 * 4096, `${sent}`);
    assert.equal(host.received.length, 0);
    const interrupts = guest.channel.interrupts;
    socket.resume();
    g.turn();
    assert.equal(guest.channel.interrupts, interrupts + 1);
    assert.deepEqual(host.bytes, pattern(0, sent));
    assert.ok(guest.write(pattern(sent, 3000)) > 0);
  });
  it("waits for a host that paused before the connection was open", () => {
    const g = new SocketGuest();
    const host = new HostEnd();
    const socket = g.service.connect(PORT, host.events)!;
    socket.pause();
    g.turn();
    const guest = g.open(g.offer(PORT)!);
    guest.write(pattern(0, 10));
    g.turn();
    assert.equal(host.received.length, 0);
    socket.resume();
    g.turn();
    assert.deepEqual(host.bytes, pattern(0, 10));
  });
  it("is heard out to the packet at which the host pauses", () => {
    const { g, guest, host, socket } = connected();
    host.onData = () => socket.pause();
    for (let i = 0; i < 3; i++) guest.write(pattern(i, 1));
    g.turn();
    assert.equal(host.received.length, 1);
    for (let i = 0; i < 2; i++) {
      socket.resume();
      g.turn();
    }
    assert.equal(host.received.length, 3);
  });
});

describe("a guest that breaks the framing", () => {
  it("loses the connection, is told so, and named in the trace", () => {
    for (const [payload, type, rule] of [
      [header(4, 8, 2), 6, /no packet of data/],
      [header(0, 0, 0), 6, /no packet of data/],
      [new Uint8Array(0), 6, /no packet of data/],
      [header(4, 8), 11, /no packet of data/],
      [header(4, 8), 7, /no packet of data/],
      [header(9, 8), 6, /more data/],
      [header(0xffffffff, 8), 6, /more data/],
      [header(16385, 16392), 6, /more data/],
    ] as const) {
      const { g, guest, host } = connected(8);
      raw(guest, g, payload, type);
      assert.deepEqual(host.log, ["open", "close reset"]);
      assert.match(g.violations().join(), rule);
      guest.release();
      assert.deepEqual([g.service.count, g.relids], [0, 0]);
    }
  });
  it("loses it for broken rings, too", () => {
    const { g, guest, host, socket } = connected();
    guest.channel.in.store(4, 0xfffffff0);
    socket.write(pattern(0, 10));
    g.turn();
    assert.deepEqual(host.log, ["open", "close reset"]);
    guest.release();
  });
  it("is not heard after its end", () => {
    const { g, guest, host } = connected();
    guest.fin();
    guest.write(pattern(0, 10));
    raw(guest, g, header(0));
    assert.deepEqual([host.log, host.received], [["open", "end"], []]);
  });
  it("gets one channel for each connection", () => {
    const { socket } = connected();
    assert.equal(socket.open({} as never), undefined);
  });
  it("meets a host that destroys the connection while it is called", () => {
    for (const when of ["onData", "onEnd"] as const) {
      const { g, guest, host, socket } = connected();
      host[when] = () => socket.destroy();
      guest.write(pattern(0, 10));
      guest.write(pattern(10, 10));
      guest.fin();
      assert.deepEqual(host.log.at(-1), "close reset");
      assert.equal(host.received.length, when === "onData" ? 1 : 2);
      g.turn();
      guest.release();
    }
  });
  it("does not bring back a socket whose channel shows no more than the contract", () => {
    // without the ring's fill, only an empty ring counts as read: the wait is the whole linger
    const g = new SocketGuest();
    const host = new HostEnd();
    const socket: HvSocket = g.service.connect(PORT, host.events)!;
    const plain = { outRingBytes: 4096, outEmpty: false, send: () => true, pause: () => {}, resume: () => {} };
    socket.open(plain as never);
    socket.end();
    socket.onPacket({ type: 6, payload: header(0), payloadLength: 8 } as never);
    assert.equal(socket.state, "closing");
    g.runTo(5e9);
    assert.equal(socket.state, "closed");
  });
});
