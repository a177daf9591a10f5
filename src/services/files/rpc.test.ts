import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FileServer } from "./file-server.js";
import { MOUNT_PROGRAM } from "./mount3.js";
import { NFS_PROGRAM } from "./nfs3.js";
import { AcceptStatus, parseCall, RecordStream } from "./rpc.js";
import { callRecord, parseReply, ScriptedClient } from "./scripted-client.js";
import { XdrError, XdrReader, XdrWriter } from "./xdr.js";

function marked(bytes: Uint8Array, isLast = true): Uint8Array {
  const all = new Uint8Array(4 + bytes.length);
  new DataView(all.buffer).setUint32(0, (isLast ? 0x8000_0000 : 0) + bytes.length);
  all.set(bytes, 4);
  return all;
}
const joined = (...parts: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const numbers = (n: number): Uint8Array => Uint8Array.from({ length: n }, (_, i) => i & 255);

describe("XDR", () => {
  it("reads what it writes, filled up to words", () => {
    const w = new XdrWriter(4, 8)
      .u32(7)
      .u64(2n ** 63n)
      .bool(true)
      .opaque(numbers(5))
      .opaque(numbers(0))
      .opaque(numbers(900));
    assert.equal(
      w.filled(10, (into) => into.fill(9, 0, 3).length && 3),
      3,
    );
    const r = new XdrReader(w.bytes.subarray(4));
    assert.deepEqual([r.u32(), r.u64(), r.bool()], [7, 2n ** 63n, true]);
    assert.deepEqual([r.opaque(5), r.opaque(0), r.opaque(900)], [numbers(5), numbers(0), numbers(900)]);
    assert.deepEqual(r.opaque(3), Uint8Array.of(9, 9, 9));
    assert.equal(w.length % 4, 0);
    assert.throws(() => r.u32(), XdrError);
  });
  it("refuses what is cut off, too long, no truth value", () => {
    const of = (...words: number[]): XdrReader =>
      new XdrReader(words.reduce((w, n) => w.u32(n), new XdrWriter(0)).bytes);
    assert.throws(() => of(5, 0).opaque(8), XdrError);
    assert.throws(() => of(5, 0, 0).opaque(4), XdrError);
    assert.throws(() => of(0xffff_ffff, 0).opaque(0xffff_ffff), XdrError);
    assert.throws(() => of(2).bool(), XdrError);
    assert.throws(() => of(2).u64(), XdrError);
  });
});

describe("records over a stream", () => {
  const stream = joined(
    marked(numbers(10)),
    marked(numbers(3), false),
    marked(numbers(1000), false),
    marked(numbers(2)),
    marked(numbers(0)),
    marked(numbers(50)),
  );
  const records = [numbers(10), joined(numbers(3), numbers(1000), numbers(2)), numbers(0), numbers(50)];
  it("come out whole, however they are cut", () => {
    for (const size of [1, 2, 3, 7, 100, 5000]) {
      const out: Uint8Array[] = [];
      const s = new RecordStream(2000);
      for (let at = 0; at < stream.length; at += size)
        assert.equal(
          s.push(stream.slice(at, at + size), (r) => void out.push(r.slice())),
          true,
        );
      assert.deepEqual(out, records, String(size));
    }
  });
  it("end with one that is too long, in one piece or in many, and with fragments that are empty", () => {
    const never = (): void => assert.fail();
    assert.equal(new RecordStream(100).push(marked(numbers(101)), never), false);
    const many = new RecordStream(100);
    const pushes = Array.from({ length: 11 }, () => many.push(marked(numbers(10), false), never));
    assert.deepEqual(pushes, [...Array<boolean>(10).fill(true), false]);
    assert.equal(new RecordStream(100).push(marked(numbers(0), false), never), false);
  });
});

describe("calls", () => {
  const answer = (record: Uint8Array): Uint8Array[] => {
    const replies: Uint8Array[] = [];
    void new FileServer([], 1).answer(record, (b) => void replies.push(b));
    return replies;
  };
  it("tell who calls", () => {
    const call = parseCall(callRecord(NFS_PROGRAM, 1, () => {}, { xid: 99, uid: 1000 }));
    assert.ok(call !== undefined && !(call instanceof Uint8Array));
    assert.deepEqual([call.xid, call.program, call.version, call.procedure], [99, NFS_PROGRAM, 3, 1]);
    assert.deepEqual(call.caller, { uid: 1000, gids: [1000] });
  });
  it("of what is not there are refused by kind", () => {
    const accepted = (program: number, procedure: number, version = 3): number =>
      parseReply(answer(callRecord(program, procedure, () => {}, { version }))[0]!).accepted;
    assert.equal(accepted(100_000, 3), AcceptStatus.PROG_UNAVAIL);
    assert.equal(accepted(NFS_PROGRAM, 1, 4), AcceptStatus.PROG_MISMATCH);
    assert.equal(accepted(NFS_PROGRAM, 22), AcceptStatus.PROC_UNAVAIL);
    assert.equal(accepted(MOUNT_PROGRAM, 6), AcceptStatus.PROC_UNAVAIL);
    assert.equal(accepted(NFS_PROGRAM, 1), AcceptStatus.GARBAGE_ARGS);
    assert.equal(accepted(NFS_PROGRAM, 0), AcceptStatus.SUCCESS);
    const other = callRecord(NFS_PROGRAM, 0, () => {});
    other[11] = 3;
    assert.equal(parseReply(answer(other)[0]!).accepted, -1);
  });
  it("that are none get no answer", () => {
    assert.deepEqual(answer(numbers(3)), []);
    const reply = callRecord(NFS_PROGRAM, 0, () => {});
    reply[7] = 1;
    assert.deepEqual(answer(reply), []);
    assert.deepEqual(answer(callRecord(NFS_PROGRAM, 0, () => {}).subarray(0, 30)), []);
  });
  it("mount nothing that is not shared", async () => {
    assert.equal(await new ScriptedClient(new FileServer([], 1)).mount("/0"), 2);
  });
});

describe("a connection", () => {
  it("is closed when it makes no sense, and there are few of them", () => {
    const server = new FileServer([], 1);
    const log: string[] = [];
    const events = {
      onConnect: () => void log.push("connect"),
      onData: (b: Uint8Array) => void log.push(`data ${b.length}`),
      onEnd: () => void log.push("end"),
      onSent: (n: number) => void log.push(`sent ${n}`),
      onClose: (e?: { code: string }) => void log.push(`close ${e?.code}`),
    };
    const first = server.session(1000, events)!;
    first.start?.();
    const good = marked(callRecord(NFS_PROGRAM, 0, () => {}));
    first.write(good);
    first.write(Uint8Array.of(0x7f, 0xff, 0xff, 0xff));
    first.write(good);
    assert.deepEqual(log, ["connect", `sent ${good.length}`, "data 28", "sent 4", "close reset"]);
    const open = Array.from({ length: 20 }, () => server.session(1000, events)).filter((s) => s !== undefined);
    assert.equal(open.length, 8);
    open[0]!.destroy(true);
    // not one of the guest's root
    assert.equal(server.session(1024, events), undefined);
    assert.notEqual(server.session(1023, events), undefined);
  });
  it("holds answers back for one who does not read, takes no more then, and goes on", () => {
    const server = new FileServer([], 1);
    let data = 0;
    let sent = 0;
    const s = server.session(700, {
      onConnect() {},
      onData: () => void data++,
      onEnd() {},
      onSent: (n) => {
        sent += n;
      },
      onClose: () => assert.fail(),
    })!;
    s.pause();
    // an answer has 28 bytes: 2 MiB of them are held, the rest of the calls waits
    const many = joined(...Array.from({ length: 1000 }, () => marked(callRecord(NFS_PROGRAM, 0, () => {}))));
    for (let i = 0; i < 100; i++) s.write(many);
    assert.equal(data, 0);
    assert.ok(sent > 0 && sent < many.length * 100, `${sent} bytes taken`);
    s.resume();
    assert.equal(data, 100_000);
    assert.equal(sent, many.length * 100);
  });
});
