/** Two ends of a connection, and peers that do not keep to it. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ControlConnection, type Exchange, json, MAX_REQUESTS, type Transport, WINDOW_BYTES } from "./connection.js";
import { encodeFrame, FrameDecoder, FrameKind } from "./frames.js";

const HELLO = encodeFrame(FrameKind.hello, 0, json({ protocol: "enlighten-control", version: 1 }));

/** An end whose peer is this test. */
function served(onRequest?: (exchange: Exchange, body: unknown) => boolean): {
  connection: ControlConnection;
  sent: { kind: number; id: number; payload: Uint8Array }[];
  state: { isDestroyed: boolean; isClosed: boolean; why: string };
} {
  const sent: { kind: number; id: number; payload: Uint8Array }[] = [];
  const decoder = new FrameDecoder();
  const state = { isDestroyed: false, isClosed: false, why: "" };
  const transport: Transport = {
    send: (bytes) => void decoder.push(bytes, (f) => sent.push({ ...f, payload: f.payload.slice() })),
    end: () => {},
    destroy: () => {
      state.isDestroyed = true;
    },
  };
  const connection = new ControlConnection(transport, {
    onRequest: onRequest ?? (() => true),
    onStranger: (why) => {
      state.why = why;
    },
    onClose: () => {
      state.isClosed = true;
    },
  });
  return { connection, sent, state };
}

/** Both ends; what one sends the other gets when `deliver` is called. */
function pair(onRequest: (exchange: Exchange, body: unknown) => boolean): {
  client: ControlConnection;
  server: ControlConnection;
  outcomes: { id: number; isGood: boolean; body: unknown }[];
  deliver: () => Promise<void>;
  onWay: () => number;
} {
  const queues: Uint8Array[][] = [[], []];
  const transport = (to: number): Transport => ({
    send: (bytes) => void queues[to]!.push(bytes),
    end: () => {},
    destroy: () => {},
  });
  const outcomes: { id: number; isGood: boolean; body: unknown }[] = [];
  const server = new ControlConnection(transport(0), { onRequest });
  const client = new ControlConnection(transport(1), {
    onOutcome: (id, isGood, body) => outcomes.push({ id, isGood, body }) > 0,
  });
  const deliver = async (): Promise<void> => {
    // until nothing moves any more
    for (let quiet = 0; quiet < 3; ) {
      const [a, b] = [queues[0]!.splice(0), queues[1]!.splice(0)];
      quiet = a.length + b.length === 0 ? quiet + 1 : 0;
      for (const bytes of a) client.received(bytes);
      for (const bytes of b) server.received(bytes);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const onWay = (): number => queues.flat().reduce((sum, b) => sum + b.length, 0);
  return { client, server, outcomes, deliver, onWay };
}

describe("a control connection", () => {
  it("carries many requests at a time, and every stream whole and in order", async () => {
    const bytes = (seed: number): Uint8Array =>
      Uint8Array.from({ length: 700_000 }, (_, i) => (i * seed + (i >> 8)) & 255);
    const { client, server, outcomes, deliver } = pair((exchange, body) => {
      const { seed } = body as { seed: number };
      // what comes goes back, after what is its own
      void exchange.write(1, bytes(seed));
      let back = Promise.resolve();
      exchange.read(
        0,
        (data) => (back = exchange.write(2, data)),
        () => void back.then(() => server.finish(exchange, true, { seed })),
      );
      return true;
    });
    const got = [1, 2, 3].map((seed) => {
      const exchange = client.open({ seed });
      const streams: Uint8Array[][] = [[], [], []];
      for (const stream of [1, 2]) exchange.read(stream, (data) => void streams[stream]!.push(data));
      void exchange.write(0, bytes(seed + 10)).then(() => exchange.end(0));
      return { seed, streams };
    });
    await deliver();
    assert.equal(outcomes.length, 3);
    for (const { seed, streams } of got) {
      assert.equal(Buffer.concat(streams[1]!).compare(bytes(seed)), 0);
      assert.equal(Buffer.concat(streams[2]!).compare(bytes(seed + 10)), 0);
    }
  });

  it("makes a writer wait for a slow reader, and lets other streams pass", async () => {
    let there: Exchange | undefined;
    const { client, deliver } = pair((exchange) => {
      there = exchange;
      return true;
    });
    const exchange = client.open({});
    await deliver();
    let release: (() => void)[] = [];
    let taken = 0;
    there!.read(0, (data) => {
      taken += data.length;
      return new Promise<void>((resolve) => void release.push(resolve));
    });
    let other = 0;
    there!.read(3, (data) => {
      other += data.length;
    });
    let isWritten = false;
    void exchange.write(0, new Uint8Array(3 * WINDOW_BYTES)).then(() => {
      isWritten = true;
    });
    void exchange.write(3, new Uint8Array(1000));
    await deliver();
    assert.ok(taken > 0 && taken <= WINDOW_BYTES);
    assert.deepEqual([other, isWritten], [1000, false]);
    while (taken < 3 * WINDOW_BYTES) {
      const now = release;
      release = [];
      assert.ok(now.length > 0, "nothing waits, and nothing comes");
      for (const f of now) f();
      await deliver();
    }
    assert.deepEqual([taken, isWritten], [3 * WINDOW_BYTES, true]);
  });

  it("hands over one piece at a time, and the end behind the last", async () => {
    let there: Exchange | undefined;
    const { client, deliver } = pair((exchange) => {
      there = exchange;
      return true;
    });
    const exchange = client.open({});
    const release: (() => void)[] = [];
    const seen: string[] = [];
    void exchange.write(0, Uint8Array.of(1));
    await deliver();
    there!.read(
      0,
      (data) => {
        seen.push(`begin ${data[0]}`);
        return new Promise<void>((resolve) => void release.push(resolve)).then(() => void seen.push(`end ${data[0]}`));
      },
      () => void seen.push("end"),
    );
    void exchange.write(0, Uint8Array.of(2));
    exchange.end(0);
    await deliver();
    assert.deepEqual(seen, ["begin 1"]);
    release.shift()!();
    await deliver();
    assert.deepEqual(seen, ["begin 1", "end 1", "begin 2"]);
    release.shift()!();
    await deliver();
    assert.deepEqual(seen, ["begin 1", "end 1", "begin 2", "end 2", "end"]);
  });

  it("keeps what comes before anybody reads", async () => {
    let there: Exchange | undefined;
    const { client, deliver } = pair((exchange) => {
      there = exchange;
      return true;
    });
    const exchange = client.open({});
    void exchange.write(0, Uint8Array.of(1, 2));
    void exchange.write(0, Uint8Array.of(3));
    exchange.end(0);
    await deliver();
    const seen: (number | string)[] = [];
    there!.read(
      0,
      (data) => void seen.push(...data),
      () => void seen.push("end"),
    );
    assert.deepEqual(seen, [1, 2, 3, "end"]);
  });

  it("drops what is for a request that was cancelled, and wakes its writers", async () => {
    const ended: string[] = [];
    const { client, outcomes, deliver } = pair((exchange) => {
      exchange.onClose(() => ended.push("closed"));
      void exchange.write(1, new Uint8Array(10 * WINDOW_BYTES)).then(() => ended.push("written"));
      return true;
    });
    const exchange = client.open({});
    exchange.read(1, () => new Promise(() => {}));
    await deliver();
    assert.deepEqual(ended, []);
    client.cancel(exchange);
    await deliver();
    assert.deepEqual(ended.sort(), ["closed", "written"]);
    assert.deepEqual(outcomes, []);
  });

  it("closes every request when the transport goes", async () => {
    const { connection } = served((exchange) => {
      exchange.onClose(() => closed.push(exchange.id));
      return true;
    });
    const closed: number[] = [];
    connection.received(HELLO);
    for (const id of [1, 2]) connection.received(encodeFrame(FrameKind.request, id, json({})));
    connection.closed();
    assert.deepEqual(closed, [1, 2]);
  });
});

describe("a peer that is none of ours", () => {
  it("is told apart by its first words", () => {
    for (const [bytes, why] of [
      [new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"), /does not speak/],
      [encodeFrame(FrameKind.hello, 0, json({ protocol: "other", version: 1 })), /speaks other/],
      [encodeFrame(FrameKind.hello, 0, json({ protocol: "enlighten-control", version: 2 })), /version 2/],
      [encodeFrame(FrameKind.hello, 0, new Uint8Array([0xff])), /does not speak/],
      [encodeFrame(FrameKind.request, 1, json({})), /does not speak/],
    ] as const) {
      const { connection, state } = served();
      connection.received(bytes);
      assert.match(state.why, why);
      assert.deepEqual([state.isDestroyed, state.isClosed], [true, true]);
    }
  });

  it("is cut off when it breaks the rules, and nothing else happens", () => {
    const data = (stream: number, length: number): Uint8Array =>
      encodeFrame(FrameKind.data, 1, Uint8Array.of(stream), new Uint8Array(length));
    const credit = (bytes: number): Uint8Array => {
      const payload = new Uint8Array(5);
      new DataView(payload.buffer).setUint32(1, bytes, true);
      return encodeFrame(FrameKind.credit, 1, payload);
    };
    const begin = encodeFrame(FrameKind.request, 1, json({}));
    const rest = (n: number): Uint8Array[] =>
      Array.from({ length: n }, (_, i) => encodeFrame(FrameKind.request, 2 + i, json({})));
    const cases: [string, Uint8Array[]][] = [
      ["a second hello", [HELLO]],
      ["an id twice", [begin]],
      ["a request that is no JSON", [encodeFrame(FrameKind.request, 2, Uint8Array.of(0xff))]],
      ["a request of nothing", [encodeFrame(FrameKind.request, 2)]],
      ["an answer", [encodeFrame(FrameKind.answer, 1, json({}))]],
      ["a stream that cannot be", [data(200, 1)]],
      ["data without a stream", [encodeFrame(FrameKind.data, 1)]],
      ["more than the window", [data(0, WINDOW_BYTES), data(0, 1)]],
      ["credit beyond the window", [credit(1)]],
      ["credit of another length", [encodeFrame(FrameKind.credit, 1, new Uint8Array(3))]],
      ["a note that is no JSON", [encodeFrame(FrameKind.note, 1, Uint8Array.of(0x7b))]],
      ["data of a request that never was", [encodeFrame(FrameKind.data, 99, new Uint8Array(2))]],
      ["cancelling what never was", [encodeFrame(FrameKind.cancel, 99)]],
      ["too many requests", rest(MAX_REQUESTS)],
    ];
    for (const [what, bytes] of cases) {
      const { connection, state } = served();
      connection.received(HELLO);
      connection.received(begin);
      assert.equal(state.isClosed, false, what);
      for (const b of bytes) connection.received(b);
      assert.deepEqual([state.isDestroyed, state.isClosed], [true, true], what);
    }
  });

  it("never makes an end throw, whatever frames it sends", () => {
    const frame = fc.record({
      kind: fc.constantFrom(...Object.values(FrameKind)),
      id: fc.integer({ min: 0, max: 4 }),
      payload: fc.oneof(
        fc.uint8Array({ maxLength: 20 }),
        fc.jsonValue().map((v) => json(v)),
        fc.constant(Uint8Array.of(0, 1, 0, 0, 0)),
      ),
    });
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 20 }), (frames) => {
        const { connection } = served((exchange) => {
          exchange.onNote = () => {
            throw new Error("not in order");
          };
          exchange.read(0, () => {});
          return true;
        });
        connection.received(HELLO);
        for (const f of frames) connection.received(encodeFrame(f.kind, f.id, f.payload));
      }),
    );
  });
});
