/** The command line program: codes, streams, refusals, and every way out that leaves nothing behind. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { debian, enlighten } from "./guests.js";

let dir: string;
let kernel: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "enlighten-program-"));
  kernel = join(dir, "vmlinuz");
  await writeFile(kernel, (await (await debian()).load()).kernel);
});
after(() => rm(dir, { recursive: true }));

/** A user's mistake: a message that names it, a next thing to try, no stack. */
function refused(r: { code: number | null; stderr: string }, code: number, message: RegExp): void {
  assert.match(r.stderr, message);
  assert.match(r.stderr, /\n {2}try: \S|\(enlighten --help/);
  assert.doesNotMatch(r.stderr, /\n\s+at .*:\d+:\d+/);
  assert.equal(r.code, code, r.stderr);
}

describe("enlighten run", () => {
  it("gives the command's streams and exit code, and the counters", async () => {
    const r = await enlighten([
      "run",
      "debian:12",
      "-m",
      "256M",
      "--exec",
      "echo out; echo err >&2; exit 42",
      "--stats",
    ]);
    assert.equal(r.code, 42, r.stderr);
    assert.equal(r.stdout.toString(), "out\n");
    assert.match(r.stderr, /^err$/m);
    assert.match(r.stderr, /^instructions \d/m);
  });

  it("is a console in a pipe: lines in, the guest's text out, its end is ours", async () => {
    const log = join(dir, "serial.log");
    const r = await enlighten(["run", "-m", "256M", "--serial-log", log], { input: "echo answer $((40+2))\nexit\n" });
    assert.equal(r.code, 0, r.stderr);
    assert.match(r.stdout.toString(), /answer 42/);
    assert.equal(await readFile(log, "latin1"), r.stdout.toString("latin1"));
  });

  it("speaks JSON, one object a line", async () => {
    const r = await enlighten(["run", "-m", "256M", "--exec", "echo hello; exit 1", "--json"]);
    assert.equal(r.code, 1, r.stderr);
    const events = r.stdout
      .toString()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { event: string; data?: string; exitCode?: number });
    assert.ok(events.some((e) => e.event === "started"));
    assert.equal(
      Buffer.concat(events.filter((e) => e.event === "stdout").map((e) => Buffer.from(e.data!, "base64"))).toString(),
      "hello\n",
    );
    assert.deepEqual(events.at(-1)?.event, "ended");
    assert.equal(events.at(-1)?.exitCode, 1);
  });

  it("ends with 124 when the time is up, and says what it waited for", async () => {
    const r = await enlighten(["run", "-m", "256M", "--exec", "sleep 1000", "--timeout", "20"]);
    assert.equal(r.code, 124);
    assert.match(r.stderr, /time-out after 20 s, waiting for the command to end/);
  });

  it("ends with 125 and the panic's text when the guest crashes", async () => {
    // no init in there: the kernel panics
    const r = await enlighten(["run", "--kernel", kernel, "-m", "256M"]);
    assert.equal(r.code, 125);
    assert.match(r.stderr, /the guest crashed\n.*Kernel panic - not syncing: VFS: Unable to mount root fs/s);
  });

  it("is repeatable with --deterministic", async () => {
    const args = ["run", "-m", "128M", "--deterministic", "--exec", "head -c 8 /dev/urandom | od -x; cat /proc/uptime"];
    const [a, b] = await Promise.all([enlighten(args), enlighten(args)]);
    assert.equal(a.code, 0, a.stderr);
    assert.ok(a.stdout.length > 20);
    assert.equal(a.stdout.toString(), b.stdout.toString());
  });

  for (const [when, delay] of [
    ["at once", 150],
    ["in mid-boot", 2500],
  ] as const) {
    it(`ends on SIGINT ${when} with 130 and leaves no process`, async () => {
      const r = await enlighten(["run", "-m", "256M", "--exec", "sleep 1000"], {
        during: (kill) => void setTimeout(() => kill("SIGINT"), delay),
      });
      // before the program has set its handlers, the signal ends it
      assert.ok(r.code === 130 || r.signal === "SIGINT", `code ${r.code} signal ${r.signal}\n${r.stderr}`);
      assert.doesNotMatch(r.stderr, /\n\s+at /);
    });
  }
});

describe("bad input", () => {
  const image = async (name: string, bytes: Uint8Array): Promise<string> => {
    const path = join(dir, name);
    await writeFile(path, bytes);
    return path;
  };
  const elf = (machine: number): Uint8Array => {
    const b = new Uint8Array(256);
    b.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
    b.set([2, 0, machine & 255, machine >> 8, 1], 16);
    return b;
  };

  it("refuses a truncated bzImage", async () => {
    const whole = await readFile(kernel);
    for (const size of [100, 600, 40_000, whole.length >> 1]) {
      const r = await enlighten(["run", "--kernel", await image("cut", whole.subarray(0, size))]);
      assert.ok(r.code === 125 || r.code === 126, `${size}: ${r.code}`);
      refused(r, r.code!, /ends too early|damaged|no Linux|cannot|not/);
    }
  });

  it("refuses images for other processors with 126 and the reason", async () => {
    const arm64 = new Uint8Array(128);
    arm64.set([0x41, 0x52, 0x4d, 0x64], 0x38);
    const riscv = new Uint8Array(128);
    riscv.set(new TextEncoder().encode("RISCV"), 0x30);
    riscv.set(new TextEncoder().encode("RSC\x05"), 0x38);
    const xcoff = new Uint8Array(128);
    xcoff.set([0x01, 0xf7, 0, 3]); // 64 bits, three sections
    const prep = new Uint8Array(1024);
    prep.set([0x55, 0xaa], 510);
    prep[446 + 4] = 0x41;
    prep[446 + 12] = 1;
    for (const [name, bytes, reason] of [
      ["power.elf", elf(21), /POWER/],
      ["arm64.elf", elf(183), /ARM64/],
      ["riscv.elf", elf(243), /RISC-V/],
      ["Image", arm64, /ARM64/],
      ["Image-riscv", riscv, /RISC-V/],
      ["aix", xcoff, /POWER/],
      ["prep", prep, /POWER/],
    ] as const) {
      const path = await image(name, bytes);
      refused(await enlighten(["run", "--kernel", path]), 126, reason);
      const inspected = await enlighten(["inspect", path]);
      assert.equal(inspected.code, 126, name);
      assert.match(inspected.stdout.toString(), reason);
    }
  });

  it("refuses a kernel that is cut off or changed with 126, by its version", async () => {
    const whole = await readFile(kernel);
    const changed = Uint8Array.from(whole).fill(0xff, 5_000_000, 5_000_100);
    for (const [name, bytes] of [
      ["vmlinuz-cut", whole.subarray(0, whole.length - 1_000_000)],
      ["vmlinuz-changed", changed],
    ] as const)
      refused(
        await enlighten(["run", "--kernel", await image(name, bytes)]),
        126,
        /^enlighten: Linux 6\.1\S* \(bzImage\): /m,
      );
  });

  it("says what a good kernel is", async () => {
    const r = await enlighten(["inspect", kernel, "--json"]);
    assert.equal(r.code, 0);
    const identity = JSON.parse(r.stdout.toString()) as { format: string; architecture: string; kernelVersion: string };
    assert.equal(identity.format, "bzimage");
    assert.equal(identity.architecture, "x86-64");
    assert.match(identity.kernelVersion, /^6\.1\./);
  });

  it("refuses what is not there, with 127", async () => {
    refused(await enlighten(["run", "--kernel", join(dir, "nowhere")]), 127, /no file/);
    refused(await enlighten(["inspect", join(dir, "nowhere")]), 127, /no file/);
    refused(await enlighten(["run", "debian:99"]), 127, /no guest "debian:99"/);
  });

  it("refuses options that cannot be, with 2", async () => {
    for (const args of [
      ["run", "-m", "lots"],
      ["run", "-m", "9999G"],
      ["run", "--cpu", "default,+warp"],
      ["run", "--timeout", "-3"],
      ["run", "--no-such"],
    ]) {
      const r = await enlighten(args);
      assert.equal(r.code, 2, args.join(" "));
      assert.match(r.stderr, /error: /);
    }
  });

  it("refuses too little memory by saying how much it takes", async () => {
    refused(await enlighten(["run", "-m", "32M", "--exec", "true"]), 125, /32 MiB/);
  });

  it("refuses a serial log that cannot be written", async () => {
    refused(await enlighten(["run", "-m", "256M", "--serial-log", "/nowhere/x"]), 125, /serial log/);
  });

  describe("mirrors", () => {
    let server: Server;
    let url: string;
    before(async () => {
      // an index that nobody signed
      server = createServer((request, response) => {
        response.writeHead(request.url!.endsWith("InRelease") ? 200 : 404);
        response.end("Origin: Debian\nSuite: stable\nCodename: bookworm\nSHA256:\n");
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`;
    });
    after(() => void server.close());
    const emptyCache = async (): Promise<Record<string, string>> => ({
      XDG_CACHE_HOME: await mkdtemp(join(dir, "cache-")),
    });

    it("refuses an unsigned index", async () => {
      const env = await emptyCache();
      refused(await enlighten(["run", "--mirror", url, "--exec", "true"], { env }), 125, /InRelease|sign/);
      assert.deepEqual(
        (await readdir(env.XDG_CACHE_HOME!, { recursive: true })).filter((f) => /\.(tmp|part|new)/.test(f)),
        [],
      );
    });
    it("says that there is no network", async () => {
      refused(
        await enlighten(["run", "--mirror", "http://127.0.0.1:9/debian", "--exec", "true"], {
          env: await emptyCache(),
        }),
        125,
        /127\.0\.0\.1/,
      );
    });
    it("says that nothing is cached, offline", async () => {
      refused(
        await enlighten(["run", "--offline", "--exec", "true"], { env: await emptyCache() }),
        125,
        /cache|offline/i,
      );
    });
  });
});
