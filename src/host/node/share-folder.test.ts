import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import { FileServer } from "../../services/files/file-server.js";
import { NFS_PROGRAM, NfsProcedure as P } from "../../services/files/nfs3.js";
import {
  callRecord,
  optionalAttributes,
  parseReply,
  readAttributes,
  readChange,
  ScriptedClient,
} from "../../services/files/scripted-client.js";
import { FileType, NfsStatus as S } from "../../services/files/share.js";
import { FolderShare } from "./share-folder.js";

const top = mkdtempSync(join(tmpdir(), "enlighten-share-"));
after(() => rmSync(top, { recursive: true, force: true }));
let folder: string;
let outside: string;
let share: FolderShare;
let server: FileServer;
let client: ScriptedClient;
let root: Uint8Array;
let serial = 0;
/** sattr3 that sets nothing. */
const NOTHING = [0, 0, 0, 0, 0, 0] as const;

async function open(readOnly = false): Promise<void> {
  share = new FolderShare(folder, readOnly);
  server = new FileServer([share], 42);
  client = new ScriptedClient(server);
  root = (await client.mount("/0")) as Uint8Array;
  assert.ok(root instanceof Uint8Array);
}
beforeEach(async () => {
  const base = join(top, String(serial++));
  folder = join(base, "shared");
  outside = join(base, "outside");
  mkdirSync(folder, { recursive: true });
  mkdirSync(outside);
  writeFileSync(join(outside, "secret"), "secret");
  await open();
});
afterEach(() => {
  server.close();
  assert.equal(server.fault, undefined);
  assert.deepEqual(readdirSync(outside), ["secret"]);
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "secret");
});

async function lookup(at: Uint8Array, name: string): Promise<Uint8Array> {
  const [status, r] = await client.nfs(P.LOOKUP, at, name);
  assert.equal(status, S.OK, name);
  return r.opaque(64).slice();
}
async function status(procedure: number, ...args: Parameters<ScriptedClient["nfs"]>[1][]): Promise<number> {
  return (await client.nfs(procedure, ...args))[0];
}
async function create(at: Uint8Array, name: string): Promise<Uint8Array> {
  const [s, r] = await client.nfs(P.CREATE, at, name, 0, ...NOTHING);
  assert.equal(s, S.OK);
  assert.equal(r.bool(), true);
  return r.opaque(64).slice();
}
async function write(at: Uint8Array, text: string, offset = 0n): Promise<number> {
  const bytes = Buffer.from(text);
  return status(P.WRITE, at, offset, bytes.length, 0, bytes);
}
async function list(
  at: Uint8Array,
  procedure: 16 | 17,
  size = 1000,
  onName = (_name: string): void => undefined,
): Promise<Map<string, number>> {
  const names = new Map<string, number>();
  for (let cookie = 0n, verifier = 0n; ; ) {
    const [s, r] = await client.nfs(procedure, at, cookie, verifier, ...(procedure === 17 ? [size] : []), size);
    assert.equal(s, S.OK);
    optionalAttributes(r);
    verifier = r.u64();
    while (r.bool()) {
      r.u64();
      const name = Buffer.from(r.opaque(255)).toString();
      cookie = r.u64();
      assert.ok(!names.has(name), `${name} twice`);
      const a = procedure === 17 ? optionalAttributes(r) : undefined;
      if (procedure === 17 && r.bool()) r.opaque(64);
      names.set(name, a?.type ?? 0);
      onName(name);
    }
    if (r.bool()) return names;
  }
}

describe("a shared folder", () => {
  it("shows files with their attributes, those of the host's user as root's", async () => {
    writeFileSync(join(folder, "a"), "hello", { mode: 0o640 });
    const a = await lookup(root, "a");
    const [s, r] = await client.nfs(P.GETATTR, a);
    assert.equal(s, S.OK);
    const is = readAttributes(r);
    const stat = statSync(join(folder, "a"), { bigint: true });
    assert.deepEqual([is.type, is.mode, is.nlink, is.uid, is.gid], [FileType.REG, 0o640, 1, 0, 0]);
    assert.deepEqual([is.size, is.fileid, is.mtime, is.ctime], [5n, stat.ino, stat.mtimeNs, stat.ctimeNs]);
    assert.equal(await status(P.LOOKUP, root, "b"), S.NOENT);
  });
  it("lists large folders in pieces of any size, also while names go", async () => {
    for (let i = 0; i < 500; i++) writeFileSync(join(folder, `file ${i}`), "");
    mkdirSync(join(folder, "sub"));
    symlinkSync("x", join(folder, "link"));
    for (const procedure of [P.READDIR, P.READDIRPLUS])
      for (const size of [600, 4000, 1 << 20]) {
        const names = await list(root, procedure, size);
        assert.equal(names.size, 504);
        if (procedure === P.READDIRPLUS)
          assert.deepEqual(
            ["..", "link", "sub"].map((n) => names.get(n)),
            [FileType.DIR, FileType.LNK, FileType.DIR],
          );
      }
    // as rm -r does it
    await list(root, P.READDIR, 700, (name) => {
      if (name.startsWith("file")) rmSync(join(folder, name));
    });
    assert.deepEqual(readdirSync(folder).sort(), ["link", "sub"]);
    assert.equal(await status(P.READDIR, root, 3n, 999n, 1000), S.BAD_COOKIE);
    assert.equal(await status(P.READDIR, root, 0n, 0n, 100), S.TOOSMALL);
  });
  it("takes what is written, at any place, and leaves holes", async () => {
    const f = await create(root, "ü");
    assert.equal(await write(f, "end", 1n << 20n), S.OK);
    assert.equal(await write(f, "begin"), S.OK);
    const [s, r] = await client.nfs(P.COMMIT, f, 0n, 0);
    assert.equal(s, S.OK);
    assert.equal(readChange(r)?.size, (1n << 20n) + 3n);
    const st = statSync(join(folder, "ü"));
    assert.equal(st.size, (1 << 20) + 3);
    assert.ok(st.blocks * 512 < 1 << 19);
    const [, read] = await client.nfs(P.READ, f, 1n << 20n, 100);
    optionalAttributes(read);
    assert.deepEqual([read.u32(), read.bool(), Buffer.from(read.opaque(100)).toString()], [3, true, "end"]);
    const [, beyond] = await client.nfs(P.READ, f, 1n << 50n, 100);
    optionalAttributes(beyond);
    assert.deepEqual([beyond.u32(), beyond.bool(), beyond.opaque(100).length], [0, true, 0]);
    assert.equal(await status(P.WRITE, f, (1n << 53n) - 1n, 1, 0, Buffer.of(1)), S.FBIG);
  });
  it("changes mode, size and times; setuid and other owners it does not", async () => {
    const f = await create(root, "f");
    await write(f, "0123456789");
    // mode, no uid, no gid, size 4, atime now, mtime of the client's
    assert.equal(await status(P.SETATTR, f, 1, 0o6750, 0, 0, 1, 4n, 1, 2, 981_173_106, 500_000_000, 0), S.OK);
    const st = statSync(join(folder, "f"));
    assert.deepEqual([st.mode & 0o7777, st.size, st.mtimeMs], [0o750, 4, 981_173_106_500]);
    assert.equal(await status(P.SETATTR, f, 0, 1, 1000, 0, 0, 0, 0, 0), S.PERM);
    assert.equal(await status(P.SETATTR, f, 0, 1, 0, 1, 0, 0, 0, 0, 0), S.OK);
    // guard: a time that it was not changed at
    assert.equal(await status(P.SETATTR, f, ...NOTHING, 1, 5, 5), S.NOT_SYNC);
  });
  it("takes what the guest's root writes to files that are for reading only, as git makes them", async () => {
    const [, r] = await client.nfs(P.CREATE, root, "object", 0, 1, 0o444, 0, 0, 0, 0, 0);
    assert.equal(r.bool(), true);
    const f = r.opaque(64).slice();
    assert.equal(await write(f, "first"), S.OK);
    // more files than stay open: it is opened anew
    for (let i = 0; i < 70; i++) await write(await create(root, `n${i}`), "x");
    assert.ok(share.openFiles < 70);
    assert.equal(await write(f, " and more", 5n), S.OK);
    assert.equal(readFileSync(join(folder, "object"), "utf8"), "first and more");
    assert.equal(statSync(join(folder, "object")).mode & 0o7777, 0o444);
    // and a mode of 0 does not lock it out
    assert.equal(await status(P.SETATTR, f, 1, 0, 0, 0, 0, 0, 0, 0), S.OK);
    assert.equal(await status(P.SETATTR, f, 1, 0o600, 0, 0, 0, 0, 0, 0), S.OK);
    assert.equal(statSync(join(folder, "object")).mode & 0o7777, 0o600);
  });
  it("makes, links, renames and removes", async () => {
    assert.equal(await status(P.MKDIR, root, "d", ...NOTHING), S.OK);
    assert.equal(statSync(join(folder, "d")).mode & 0o777, 0o755);
    const d = await lookup(root, "d");
    const f = await create(d, "f");
    await write(f, "content");
    assert.equal(await status(P.LINK, f, root, "g"), S.OK);
    assert.equal(statSync(join(folder, "g")).nlink, 2);
    assert.equal(await status(P.SYMLINK, root, "l", ...NOTHING, "../outside/secret"), S.OK);
    assert.equal(readlinkSync(join(folder, "l")), "../outside/secret");
    const [, text] = await client.nfs(P.READLINK, await lookup(root, "l"));
    optionalAttributes(text);
    assert.equal(Buffer.from(text.opaque(100)).toString(), "../outside/secret");
    assert.equal(await status(P.RENAME, d, "f", root, "h"), S.OK);
    assert.equal(await status(P.RMDIR, root, "d"), S.OK);
    assert.equal(await status(P.GETATTR, d), S.STALE);
    assert.equal(await status(P.REMOVE, root, "h"), S.OK);
    // it has a name still
    assert.equal(await status(P.GETATTR, f), S.OK);
    assert.equal(await status(P.REMOVE, root, "g"), S.OK);
    assert.equal(await status(P.GETATTR, f), S.STALE);
    assert.equal(await status(P.MKNOD, root, "p", 7, ...NOTHING), S.NOTSUPP);
    assert.deepEqual(readdirSync(folder), ["l"]);
  });
  it("creates once what is asked for twice, by its verifier", async () => {
    assert.equal(await status(P.CREATE, root, "x", 2, 77n), S.OK);
    assert.equal(await status(P.CREATE, root, "x", 2, 77n), S.OK);
    assert.equal(await status(P.CREATE, root, "x", 2, 78n), S.EXIST);
    assert.equal(await status(P.CREATE, root, "x", 1, ...NOTHING), S.EXIST);
    assert.equal(await status(P.CREATE, root, "x", 0, ...NOTHING), S.OK);
  });
  it("keeps a file's handle through renames, the guest's and those of the host that it hears of", async () => {
    mkdirSync(join(folder, "a/b"), { recursive: true });
    writeFileSync(join(folder, "a/b/f"), "x");
    const a = await lookup(root, "a");
    const b = await lookup(a, "b");
    const f = await lookup(b, "f");
    assert.equal(await status(P.RENAME, root, "a", root, "c"), S.OK);
    assert.equal(await write(f, "y"), S.OK);
    assert.equal(readFileSync(join(folder, "c/b/f"), "utf8"), "y");
    renameSync(join(folder, "c/b/f"), join(folder, "moved"));
    assert.deepEqual(await lookup(root, "moved"), f);
    assert.equal(await status(P.GETATTR, f), S.OK);
    rmSync(join(folder, "moved"));
    assert.equal(await status(P.GETATTR, f), S.STALE);
    assert.equal(await status(P.READ, f, 0n, 10), S.STALE);
  });
  it("is the same to a guest that was saved, and its handles are stale in another folder", async () => {
    mkdirSync(join(folder, "a"));
    writeFileSync(join(folder, "a/f"), "x");
    const f = await lookup(await lookup(root, "a"), "f");
    const saved = structuredClone(server.save());
    server.close();
    await open();
    // with another word by chance than before
    server = new FileServer([share], 4242);
    client = new ScriptedClient(server);
    assert.equal(await status(P.GETATTR, f), S.STALE);
    server.restore(saved);
    assert.equal(await write(f, "y"), S.OK);
    assert.equal(readFileSync(join(folder, "a/f"), "utf8"), "y");
    const other = new FolderShare(outside, false);
    const otherServer = new FileServer([other], 1);
    otherServer.restore(saved);
    assert.equal((await new ScriptedClient(otherServer).nfs(P.GETATTR, f))[0], S.STALE);
    other.close();
  });
  it("is stale, not a crash, once it was removed", async () => {
    writeFileSync(join(folder, "a"), "");
    const a = await lookup(root, "a");
    rmSync(folder, { recursive: true });
    for (const s of [await status(P.GETATTR, root), await status(P.GETATTR, a)]) assert.equal(s, S.STALE);
    assert.notEqual(await status(P.LOOKUP, root, "a"), S.OK);
    assert.notEqual(await status(P.CREATE, root, "b", 0, ...NOTHING), S.OK);
    mkdirSync(folder);
  });
  it("lets the guest's root do what the host's user may, and others what the mode says", async () => {
    writeFileSync(join(folder, "f"), "", { mode: 0o640 });
    const f = await lookup(root, "f");
    const access = async (): Promise<number> => {
      const [, r] = await client.nfs(P.ACCESS, f, 63);
      optionalAttributes(r);
      return r.u32();
    };
    assert.equal(await access(), 1 | 4 | 8);
    client.uid = 1000;
    assert.equal(await access(), 0);
  });
});

describe("a shared folder that may only be read", () => {
  it("refuses everything that changes it", async () => {
    writeFileSync(join(folder, "f"), "x");
    server.close();
    await open(true);
    const f = await lookup(root, "f");
    const before = statSync(folder).ctimeMs;
    for (const [procedure, ...args] of [
      [P.SETATTR, f, 1, 0o777, 0, 0, 0, 0, 0, 0],
      [P.WRITE, f, 0n, 1, 0, Buffer.of(1)],
      [P.CREATE, root, "n", 0, ...NOTHING],
      [P.MKDIR, root, "n", ...NOTHING],
      [P.SYMLINK, root, "n", ...NOTHING, "x"],
      [P.REMOVE, root, "f"],
      [P.RMDIR, root, "f"],
      [P.RENAME, root, "f", root, "n"],
      [P.LINK, f, root, "n"],
    ] as const)
      assert.equal(await status(procedure, ...args), S.ROFS, String(procedure));
    assert.equal(statSync(folder).ctimeMs, before);
    assert.deepEqual(readdirSync(folder), ["f"]);
    assert.equal(await status(P.READ, f, 0n, 1), S.OK);
  });
});

describe("no way out of a shared folder", () => {
  it("by names", async () => {
    for (const name of ["../outside", "..\0", "/etc", "a/b", ""]) {
      assert.equal(await status(P.LOOKUP, root, name), S.INVAL, name);
      assert.equal(await status(P.CREATE, root, name, 0, ...NOTHING), S.INVAL, name);
    }
    assert.equal(await status(P.CREATE, root, "..", 0, ...NOTHING), S.INVAL);
    assert.equal(await status(P.RENAME, root, "..", root, "x"), S.INVAL);
    // above the root is the root
    assert.deepEqual(await lookup(root, ".."), root);
  });
  it("by links that are there or are made", async () => {
    symlinkSync(outside, join(folder, "way"));
    symlinkSync(join(outside, "secret"), join(folder, "file"));
    const way = await lookup(root, "way");
    for (const procedure of [P.READDIR, P.READDIRPLUS])
      assert.notEqual(await status(procedure, way, 0n, 0n, 1000, 1000), S.OK);
    assert.notEqual(await status(P.LOOKUP, way, "secret"), S.OK);
    assert.notEqual(await status(P.CREATE, way, "x", 0, ...NOTHING), S.OK);
    const file = await lookup(root, "file");
    assert.notEqual(await status(P.READ, file, 0n, 10), S.OK);
    assert.notEqual(await write(file, "changed"), S.OK);
    assert.equal(await status(P.CREATE, root, "file", 0, ...NOTHING), S.EXIST);
    assert.equal(await status(P.SETATTR, file, 1, 0o777, 0, 0, 1, 0n, 0, 0, 0), S.OK);
    assert.equal(statSync(join(outside, "secret")).size, 6);
  });
  it("by a folder that becomes a link behind a handle", async () => {
    mkdirSync(join(folder, "d"));
    writeFileSync(join(folder, "d/secret"), "mine");
    const d = await lookup(root, "d");
    const f = await lookup(d, "secret");
    renameSync(join(folder, "d"), join(folder, "e"));
    symlinkSync(outside, join(folder, "d"));
    // the open folder is the one that it was
    await write(f, "MINE");
    assert.equal(readFileSync(join(folder, "e/secret"), "utf8"), "MINE");
    // and later it is found to have gone from there
    await new Promise((resolve) => setTimeout(resolve, 600));
    assert.equal(await status(P.LOOKUP, d, "secret"), S.STALE);
    assert.equal(await status(P.GETATTR, f), S.STALE);
  });
  it("by a file that becomes a link behind a handle", async () => {
    writeFileSync(join(folder, "f"), "mine");
    const f = await lookup(root, "f");
    rmSync(join(folder, "f"));
    symlinkSync(join(outside, "secret"), join(folder, "f"));
    assert.equal(await status(P.READ, f, 0n, 10), S.STALE);
    assert.notEqual(await write(f, "changed"), S.OK);
  });
  it("by handles of others, or invented", async () => {
    const other = new ScriptedClient(new FileServer([share], 43));
    assert.equal((await other.nfs(P.GETATTR, root))[0], S.STALE);
    for (const handle of [root.subarray(1), new Uint8Array(64), new Uint8Array(0)])
      assert.notEqual(await status(P.GETATTR, handle), S.OK);
    const invented = root.slice();
    invented[15] = 99;
    assert.equal(await status(P.GETATTR, invented), S.STALE);
    invented[7] = 1;
    assert.equal(await status(P.GETATTR, invented), S.BADHANDLE);
  });
});

describe("a client that means ill", () => {
  it("gets one answer for each call, and neither out of the folder nor the server to fall over", async () => {
    let seed = 4711;
    const random = (n: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return (seed >>> 8) % n;
    };
    mkdirSync(join(folder, "d/e"), { recursive: true });
    writeFileSync(join(folder, "f"), "content");
    linkSync(join(folder, "f"), join(folder, "d/g"));
    symlinkSync(outside, join(folder, "d/way"));
    execFileSync("mkfifo", [join(folder, "p")]);
    const handles: Uint8Array[] = [root];
    const names = [
      "d",
      "e",
      "f",
      "g",
      "way",
      "p",
      "..",
      ".",
      "x",
      "y",
      "secret",
      "",
      "a/b",
      "../outside",
      "n".repeat(300),
    ];
    const odd = [0, 1, 2, 3, 7, 255, 0xffff, 0x7fff_ffff, 0xffff_ffff];
    const counts = new Map<number, number>();
    for (let i = 0; i < 10_000; i++) {
      const procedure = random(23);
      const record = callRecord(NFS_PROGRAM, procedure, (w) => {
        w.opaque(handles[random(handles.length)]!);
        for (let n = random(10); n > 0; n--) {
          const kind = random(6);
          if (kind === 0) w.opaque(handles[random(handles.length)]!);
          else if (kind <= 2) w.opaque(Buffer.from(names[random(names.length)]!));
          else if (kind === 3) w.u64(BigInt(odd[random(odd.length)]!) * BigInt(odd[random(odd.length)]!));
          else if (kind === 4) w.u32(odd[random(odd.length)]!);
          else w.u32(random(3));
        }
      });
      if (random(20) === 0) record[random(record.length)] = random(256);
      const replies: Uint8Array[] = [];
      await server.answer(
        random(30) === 0 ? record.subarray(0, random(record.length)) : record,
        (b) => void replies.push(b),
      );
      assert.ok(replies.length <= 1);
      for (const reply of replies) {
        const { accepted, results } = parseReply(reply);
        assert.notEqual(accepted, 5, "a mistake of the server's");
        if (accepted !== 0 || procedure === 0 || procedure > 21) continue;
        const s = results.u32();
        counts.set(s, (counts.get(s) ?? 0) + 1);
        if (s === S.OK && procedure === P.LOOKUP && handles.length < 30) handles.push(results.opaque(64).slice());
      }
      // it may have removed everything, or made modes that lock it out
      if (i % 500 === 0 && !existsSync(join(folder, "d"))) mkdirSync(join(folder, "d"));
    }
    assert.equal(server.fault, undefined);
    assert.ok((counts.get(S.OK) ?? 0) > 300, `${counts.get(S.OK)} calls went well`);
    assert.ok(counts.size > 8, `kinds of answers: ${[...counts.keys()]}`);
    assert.ok(share.openFiles < 400 && share.nodes < 200, `${share.openFiles} open, ${share.nodes} known`);
    assert.equal(lstatSync(outside).isDirectory(), true);
  });
});
