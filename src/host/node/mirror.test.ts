import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { utf8 } from "../../image/byte-reader.js";
import { ImageError } from "../../image/errors.js";
import { readKeyring } from "./keyring.js";
import { Mirror, type MirrorOptions } from "./mirror.js";

const NO_APT = { main: [], security: [], configuration: new Map<string, string>() };
const servers: Server[] = [];

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const mirrorAt = (mirror: string | undefined, more: Partial<MirrorOptions> = {}): Mirror =>
  new Mirror({
    mirror,
    environment: {},
    apt: NO_APT,
    keyring: async () => new Uint8Array(0),
    retryDelayMs: 1,
    idleMs: 2000,
    ...more,
  });

const hasCode = (code: string) => (error: unknown) => {
  assert.ok(error instanceof ImageError, String(error));
  assert.equal(error.code, code);
  return true;
};

describe("mirror", () => {
  afterEach(() => {
    for (const server of servers.splice(0)) {
      server.closeAllConnections();
      server.close();
    }
  });

  it("fetches from the main archive and the security archive beside it, with progress", async () => {
    const base = await serve((request, response) => response.end(request.url));
    const mirror = mirrorAt(`${base}/debian/`);
    const steps: number[] = [];
    assert.equal(
      utf8(await mirror.fetch("main", "dists/x", { onBytes: (bytes) => steps.push(bytes) })),
      "/debian/dists/x",
    );
    assert.equal(utf8(await mirror.fetch("security", "dists/y")), "/debian-security/dists/y");
    assert.equal(steps.at(-1), "/debian/dists/x".length);
  });

  it("is the one the user names, else the environment's, else apt's, else none", async () => {
    const apt = { ...NO_APT, main: ["http://apt.test/debian"], security: [] };
    assert.equal(mirrorAt("http://a.test/debian", { apt }).name, "http://a.test/debian");
    assert.equal(
      mirrorAt(undefined, { apt, environment: { ENLIGHTEN_MIRROR: "http://u:p@e.test/debian" } }).name,
      "http://e.test/debian",
    );
    assert.equal(mirrorAt(undefined, { apt }).name, "http://apt.test/debian");
    assert.throws(() => mirrorAt(undefined), hasCode("no-mirror"));
    assert.deepEqual(mirrorAt(undefined, { offline: true }).urls("main"), []);
    for (const bad of ["nonsense", "ftp://a.test/debian", "http://"])
      assert.throws(() => mirrorAt(bad), hasCode("bad-mirror"));
  });

  it("tries again after the server's failures and cut connections, not after 404", async () => {
    let count = 0;
    const base = await serve((request, response) => {
      count++;
      if (request.url!.endsWith("missing")) return response.writeHead(404).end();
      if (count === 1) return response.writeHead(503).end();
      if (count === 2) {
        response.writeHead(200, { "content-length": 100 });
        response.write("part");
        return setTimeout(() => response.destroy(), 20);
      }
      return response.end("whole");
    });
    assert.equal(utf8(await mirrorAt(`${base}/debian`).fetch("main", "x")), "whole");
    assert.equal(count, 3);
    await assert.rejects(mirrorAt(`${base}/debian`).fetch("main", "missing"), hasCode("not-found"));
    assert.equal(count, 4);
  });

  it("follows redirects, but not in circles", async () => {
    const base = await serve((request, response) => {
      if (request.url === "/debian/a") return response.writeHead(302, { location: "/b" }).end();
      if (request.url === "/b") return response.end("there");
      return response.writeHead(301, { location: request.url! }).end();
    });
    assert.equal(utf8(await mirrorAt(`${base}/debian`).fetch("main", "a")), "there");
    await assert.rejects(mirrorAt(`${base}/debian`).fetch("main", "round"), hasCode("network"));
  });

  it("gives up on silence, on too much, and without a network", async () => {
    const base = await serve((request, response) => {
      if (request.url!.endsWith("big")) response.end("x".repeat(1000));
    });
    const started = Date.now();
    await assert.rejects(
      mirrorAt(`${base}/debian`, { idleMs: 50, retries: 1 }).fetch("main", "silent"),
      hasCode("network"),
    );
    assert.ok(Date.now() - started < 2000);
    await assert.rejects(mirrorAt(`${base}/debian`).fetch("main", "big", { maxBytes: 10 }), hasCode("too-big"));
    await assert.rejects(mirrorAt("http://127.0.0.1:1/debian").fetch("main", "x"), hasCode("network"));
  });

  it("stops in mid-body when it is aborted", async () => {
    const base = await serve((_request, response) => {
      response.writeHead(200, { "content-length": 1000 });
      response.write("part");
    });
    const abort = new AbortController();
    const reason = new Error("enough");
    const fetching = mirrorAt(`${base}/debian`).fetch("main", "x", {
      signal: abort.signal,
      onBytes: () => abort.abort(reason),
    });
    await assert.rejects(fetching, (error) => error === reason);
  });

  it("asks the next of apt's mirrors when one fails", async () => {
    const base = await serve((_request, response) => response.end("second"));
    const apt = { ...NO_APT, main: ["http://127.0.0.1:1/debian", `${base}/debian`] };
    assert.equal(utf8(await mirrorAt(undefined, { apt, retries: 0 }).fetch("main", "x")), "second");
  });

  it("goes through a proxy, with its password", async () => {
    const asked: (string | undefined)[] = [];
    const proxy = await serve((request, response) => {
      asked.push(request.url, request.headers["proxy-authorization"]);
      response.end("by proxy");
    });
    const environment = { http_proxy: proxy.replace("//", "//user:secret@") };
    assert.equal(utf8(await mirrorAt("http://far.test/debian", { environment }).fetch("main", "x")), "by proxy");
    assert.deepEqual(asked, ["http://far.test/debian/x", `Basic ${Buffer.from("user:secret").toString("base64")}`]);
  });

  it("opens a tunnel through the proxy for https", async () => {
    const targets: string[] = [];
    const proxy = await serve((_request, response) => response.end());
    servers.at(-1)!.on("connect", (request, socket) => {
      targets.push(request.url!);
      const far = connect(1, "127.0.0.1"); // nobody is there: the tunnel breaks, which is what we look for
      far.on("error", () => socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n"));
    });
    const environment = { https_proxy: proxy };
    await assert.rejects(
      mirrorAt("https://far.test/debian", { environment, retries: 0 }).fetch("main", "x"),
      hasCode("network"),
    );
    assert.deepEqual(targets, ["far.test:443"]);
  });

  it("reads a mirror in a folder", async () => {
    const folder = await mkdtemp(join(tmpdir(), "enlighten-mirror-"));
    try {
      await mkdir(join(folder, "debian"));
      await writeFile(join(folder, "debian/x"), "local");
      const mirror = mirrorAt(`${pathToFileURL(folder)}/debian`);
      assert.equal(utf8(await mirror.fetch("main", "x")), "local");
      await assert.rejects(mirror.fetch("main", "y"), hasCode("not-found"));
      await writeFile(join(folder, "keys"), "a key");
      assert.equal(utf8(await readKeyring(join(folder, "keys"))), "a key");
      await assert.rejects(readKeyring(join(folder, "none")), hasCode("no-keyring"));
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
