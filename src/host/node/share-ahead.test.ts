import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import { FileServer } from "../../services/files/file-server.js";
import { NFS_PROGRAM, NfsProcedure as P } from "../../services/files/nfs3.js";
import { callRecord, parseReply, ScriptedClient } from "../../services/files/scripted-client.js";
import { NfsStatus } from "../../services/files/share.js";
import type { XdrWriter } from "../../services/files/xdr.js";
import { FolderShare } from "./share-folder.js";
import type { Node } from "./share-nodes.js";
import { ShareScans } from "./share-scans.js";

const FOLDERS = ["a", "b", "c", "d", "e", "f"];
const OF_16_BITS = 65_536;

describe("many threads of a guest that go through a share at once", () => {
  let directory: string;
  let share: FolderShare;
  let client: ScriptedClient;
  let server: FileServer;
  const handles = new Map<string, Uint8Array>();
  let scans: string[] = [];

  async function lookUp(folder: Uint8Array, name: string): Promise<NfsStatus> {
    return (await client.nfs(P.LOOKUP, folder, name))[0] as NfsStatus;
  }
  /** Lists it from its beginning to its end, in calls of that size. */
  async function list(folder: string, size = OF_16_BITS): Promise<number> {
    let [cookie, verifier, calls] = [0n, 0n, 0];
    for (;;) {
      const [status, r] = await client.nfs(P.READDIRPLUS, handles.get(folder)!, cookie, verifier, size, size);
      assert.equal(status, NfsStatus.OK);
      calls++;
      assert.ok(r.bool());
      for (let i = 0; i < 21; i++) r.u32();
      verifier = r.u64();
      while (r.bool()) {
        r.u64();
        r.opaque(255);
        cookie = r.u64();
        if (r.bool()) for (let i = 0; i < 21; i++) r.u32();
        if (r.bool()) r.opaque(64);
      }
      if (r.bool()) return calls;
    }
  }
  /** Of calls, those that are answered when all that can be is. */
  async function answered(calls: readonly Promise<unknown>[]): Promise<number> {
    let n = 0;
    for (const call of calls) void call.then(() => n++);
    for (let i = 0; i < 5; i++) await setImmediate();
    return n;
  }
  /** As one after another goes on by one file: until a listing was asked for. */
  async function goThrough(folders: readonly string[]): Promise<void> {
    for (let i = 0; i < 13; i++)
      for (const folder of folders) if (!scans.includes("tree")) await lookUp(handles.get(folder)!, `f${i}`);
    assert.ok(scans.includes("tree"));
  }

  /** Folders and their files, and who asks for them. */
  async function open(): Promise<void> {
    for (const folder of FOLDERS) {
      rmSync(join(directory, folder), { recursive: true, force: true });
      mkdirSync(join(directory, folder));
      for (let i = 0; i < 60; i++) writeFileSync(join(directory, folder, `f${i}`), "");
    }
    scans = [];
    share = new FolderShare(directory, false, {
      onChanged: () => {},
      onScan: (_, from) => void scans.push(from === undefined ? "folder" : "tree"),
    });
    server = new FileServer([share], 1);
    client = new ScriptedClient(server);
    const root = (await client.mount("/0")) as Uint8Array;
    handles.clear();
    handles.set("", root);
    for (const name of FOLDERS) {
      const [, r] = await client.nfs(P.LOOKUP, root, name);
      handles.set(name, r.opaque(64).slice());
    }
  }

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "enlighten-ahead-"));
    await open();
  });
  afterEach(() => {
    share.close();
    rmSync(directory, { recursive: true });
  });

  it("are answered once what they go through is listed", async () => {
    await goThrough(FOLDERS);
    const calls = ["f50", "f51", "none"].map((name) => lookUp(handles.get("e")!, name));
    const others = [lookUp(handles.get("f")!, "f50")];
    assert.equal(await answered([...calls, ...others]), 0);
    await list("e");
    assert.equal(await answered(calls), 3);
    assert.deepEqual(await Promise.all(calls), [NfsStatus.OK, NfsStatus.OK, NfsStatus.NOENT]);
    assert.equal(await answered(others), 0);
    assert.equal(await answered([lookUp(handles.get("e")!, "f52")]), 1);
  });
  it("are not answered from a folder that is closed", async () => {
    await goThrough(FOLDERS);
    const calls = [lookUp(handles.get("e")!, "f50")];
    assert.equal(await answered(calls), 0);
    share.close();
    share = new FolderShare(directory, false);
    assert.equal(await answered(calls), 0);
  });
  it("are answered by each call that lists a part, and wait again", async () => {
    await goThrough(FOLDERS);
    const first = [lookUp(handles.get("e")!, "f50")];
    const [status, r] = await client.nfs(P.READDIRPLUS, handles.get("e")!, 0n, 0n, 4096, 4096);
    assert.equal(status, NfsStatus.OK);
    assert.ok(r.bool());
    assert.equal(await answered(first), 1);
    const second = [lookUp(handles.get("e")!, "f51")];
    assert.equal(await answered(second), 0);
    assert.ok((await list("e", 4096)) > 1);
    assert.equal(await answered(second), 1);
    assert.equal(await answered([lookUp(handles.get("e")!, "f52")]), 1);
  });
  it("are answered where no listing comes, and do not wait again", async () => {
    await goThrough(FOLDERS);
    const calls = FOLDERS.map((folder) => lookUp(handles.get(folder)!, "f50"));
    assert.equal(await answered(calls), 0);
    // each by its own bound, then all
    await Promise.all(calls);
    for (let i = 0; i < 4; i++) await Promise.all(FOLDERS.map((folder) => lookUp(handles.get(folder)!, "f51")));
    for (let i = 0; i < 30; i++)
      for (const folder of FOLDERS) assert.equal(await answered([lookUp(handles.get(folder)!, `f${i}`)]), 1);
  });
  it("leave answers for the listing: not more wait than some", async () => {
    await goThrough(FOLDERS);
    const calls = Array.from({ length: 50 }, (_, i) => lookUp(handles.get("d")!, `f${i}`));
    assert.equal(await answered(calls), 18);
    await list("d");
    assert.equal(await answered(calls), 50);
  });
  it("wait for no folder that went meanwhile", async () => {
    await goThrough(FOLDERS);
    const calls = [lookUp(handles.get("e")!, "f50")];
    assert.equal(await answered(calls), 0);
    rmSync(join(directory, "e"), { recursive: true });
    assert.equal((await client.nfs(P.GETATTR, handles.get("e")!))[0], NfsStatus.STALE);
    assert.deepEqual(await Promise.all(calls), [NfsStatus.STALE]);
  });
  it("wait ever less often where no listing comes", async () => {
    let ms = 0;
    const node = (...places: Node["places"]): Node => ({
      id: 1,
      dev: 1n,
      ino: 1n,
      format: 0n,
      birth: 0n,
      places,
      children: 0,
      isGone: false,
      shown: undefined,
    });
    const top = node();
    const scanner = new ShareScans(
      top,
      () => ms,
      () => {},
    );
    /** Goes through folders that are new. @returns whether what is looked up then waits, for a listing that does not come */
    const waits = async (): Promise<boolean> => {
      const folders = FOLDERS.map((name) => node({ parent: top, name: Buffer.from(name) }));
      let late: Promise<void> | undefined;
      for (let i = 0; i < 13; i++)
        for (const folder of folders) {
          late ??= scanner.wait(folder);
          scanner.lookedUp(folder);
        }
      ms += 600;
      // the next call finds it over
      assert.equal(scanner.wait(folders[0]!), undefined);
      await late;
      return late !== undefined;
    };
    const outcomes: boolean[] = [];
    for (const later of [0, 9_000, 2_000, 18_000, 2_000, 38_000, 2_000]) {
      ms += later;
      outcomes.push(await waits());
    }
    assert.deepEqual(outcomes, [true, false, true, false, true, false, true]);
    scanner.close();
  });
  it("get one answer for each call, whatever else is done to what they wait for", async () => {
    let seed = 815;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % n;
    };
    const names = [...FOLDERS, "f1", "f2", "f59", "none", "..", "."];
    const others = [P.READDIRPLUS, P.READDIRPLUS, P.READDIRPLUS, P.RENAME, P.RMDIR, P.REMOVE, P.MKDIR];
    let waited = 0;
    for (let burst = 0; burst < Number(process.env.CASES ?? 30); burst++) {
      // anew: where calls waited in vain they do not wait again so soon
      if (burst % 10 === 0) {
        share.close();
        await open();
        await goThrough(FOLDERS);
      }
      const folders = [...handles.values()];
      const folder = (w: XdrWriter): XdrWriter => w.opaque(folders[random(folders.length)]!);
      const name = (w: XdrWriter): XdrWriter => w.opaque(Buffer.from(names[random(names.length)]!));
      const replies = new Map<number, number>();
      const calls = Array.from({ length: 60 }, (_, xid) => {
        const procedure = random(20) < 13 ? P.LOOKUP : others[random(others.length)]!;
        const record = callRecord(
          NFS_PROGRAM,
          procedure,
          (w) => {
            folder(w);
            if (procedure === P.READDIRPLUS)
              w.u64(0n)
                .u64(0n)
                .u32(4096)
                .u32(random(2) === 0 ? 4096 : OF_16_BITS);
            else name(w);
            if (procedure === P.RENAME) name(folder(w));
            // sattr3 with nothing set
            if (procedure === P.MKDIR) for (let i = 0; i < 6; i++) w.u32(0);
          },
          { xid },
        );
        return server.answer(record, (bytes) => {
          const reply = parseReply(bytes);
          assert.equal(reply.accepted, 0);
          replies.set(reply.xid, (replies.get(reply.xid) ?? 0) + 1);
        });
      });
      waited += calls.filter((call) => call !== undefined).length;
      await Promise.all(calls);
      assert.deepEqual([...replies.values()], Array<number>(60).fill(1));
    }
    assert.equal(server.fault, undefined);
    assert.ok(waited > 50, `${waited} calls waited`);
  });
  it("do not wait where one goes alone", async () => {
    for (const folder of FOLDERS)
      for (let i = 0; i < 60; i++) assert.equal(await answered([lookUp(handles.get(folder)!, `f${i}`)]), 1);
    assert.ok(scans.includes("tree"));
  });
});
