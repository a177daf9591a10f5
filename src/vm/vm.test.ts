/** The API against a processor that is a script: back-pressure, ends, waits. The real one is in tests/guests. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Control, type FromProcessor, type ProcessorStart, type ToProcessor } from "./messages.js";
import type { PartitionState } from "./partition.js";
import type { GuestFiles, Platform, ProcessorEvents } from "./platform.js";
import { Vm } from "./vm.js";
import { VmError } from "./vm-error.js";
import type { VmOptions } from "./vm-options.js";

const guest: GuestFiles = {
  load: () => Promise.reject(new Error("not asked for")),
  commandLine: "",
  takesExec: true,
  description: "scripted",
};

class Script {
  starts: ProcessorStart[] = [];
  posted: ToProcessor[] = [];
  terminated = 0;
  #events: ProcessorEvents | undefined;
  readonly timers: (() => void)[] = [];
  readonly platform: Platform = {
    startProcessor: (start, events) => {
      this.starts.push(start);
      this.#events = events;
      queueMicrotask(() => events.onMessage({ type: "started", memory: new SharedArrayBuffer(64), pendingWord: 0 }));
      return {
        post: (m) => void this.posted.push(m),
        terminate: async () => {
          this.terminated++;
        },
      };
    },
    startDevices: () => {
      throw new Error("not asked for");
    },
    openDisks: () => Promise.reject(new Error("not asked for")),
    files: {
      openSource: () => Promise.reject(new Error("not asked for")),
      openSink: () => Promise.reject(new Error("not asked for")),
    },
    timeBase: (timeNs) => ({ timeNs, origin: [0, 0] }),
    trim: () => {},
    engine: async () => ({ runtime: new Uint8Array(), interpreter: new Uint8Array() }),
    now: () => 0,
    wallClockSeconds: () => 0,
    random: () => 0,
    setTimer: (_ms, fire) => {
      this.timers.push(fire);
      return () => {};
    },
    yield: async () => {},
  };
  say(m: FromProcessor): void {
    this.#events!.onMessage(m);
  }
  print(serial: 0 | 1 | 2 | 3, text: string): void {
    const bytes = new TextEncoder().encode(text);
    Atomics.add(this.starts.at(-1)!.control, Control.outstanding, bytes.length);
    this.say({ type: "output", serial, bytes });
  }
  get outstanding(): number {
    return this.starts.at(-1)!.control[Control.outstanding]!;
  }
  end(how: "power-off" | "reset" | "triple-fault", detail = ""): void {
    this.say({ type: "ended", how, detail, stats: { instructions: 1, timeNs: 2, haltedNs: 0, counters: {} } });
  }
}
// a saved machine needs no files
const saved = { ramBytes: 2 ** 28 } as PartitionState;
async function started(options: Partial<VmOptions> = {}): Promise<[Vm, Script]> {
  const script = new Script();
  const vm = new Vm(script.platform, { guest, saved, ...options });
  await vm.start();
  return [vm, script];
}

describe("Vm", () => {
  it("refuses limits that cannot be", async () => {
    for (const options of [
      { cpuLimit: 0 },
      { cpuLimit: 101 },
      { cpuLimit: Number.NaN },
      { cpuLimit: 50, deterministic: 1 },
    ])
      await assert.rejects(started(options), (e: unknown) => e instanceof VmError && e.code === "bad-option");
    const [, script] = await started({ cpuLimit: 50 });
    assert.equal(script.starts[0]!.cpuLimit, 0.5);
  });
  it("counts output as taken when its listeners are done with it", async () => {
    const [vm, script] = await started();
    script.print(0, "abc");
    assert.equal(script.outstanding, 0);
    let release = (): void => {};
    vm.onOutput(0, () => new Promise<void>((r) => (release = r)));
    script.print(0, "defg");
    assert.equal(script.outstanding, 4);
    release();
    await new Promise((r) => setImmediate(r));
    assert.equal(script.outstanding, 0);
    assert.equal(vm.consoleText, "abcdefg");
  });

  it("takes the exit code of the command from the control port, in any pieces", async () => {
    const [vm, script] = await started({ commands: false });
    for (const piece of ["rea", "dy\nex", "it 4", "2\n"]) script.print(3, piece);
    assert.equal(vm.ready, true);
    script.end("power-off");
    assert.deepEqual(await vm.waitForEnd(), { how: "power-off", detail: "", exitCode: 42 });
    assert.equal(script.terminated, 1);
  });

  it("is not taken in by noise on the control port", async () => {
    const [vm, script] = await started({ commands: false });
    script.print(3, `${"x".repeat(100_000)}\nexit\nexit -1\nexit 1x\n`);
    script.end("power-off");
    assert.equal((await vm.waitForEnd()).exitCode, undefined);
  });

  it("starts a new machine when the guest resets, and tells it", async () => {
    const [vm, script] = await started();
    let reboots = 0;
    vm.onReboot(() => {
      reboots++;
    });
    script.end("reset");
    await new Promise((r) => setImmediate(r));
    assert.equal(reboots, 1);
  });

  it("ends with the panic's text, whether the guest resets after it or hangs", async () => {
    for (const after of ["reset", "hang"] as const) {
      const [vm, script] = await started();
      script.print(0, "fine\r\n[1.0] Kernel panic - not syncing: why\r\n[1.1] more\r\n");
      if (after === "reset") script.end("reset");
      else script.print(0, "[1.2] ---[ end Kernel panic - not syncing: why ]---\r\n");
      const end = await vm.waitForEnd();
      assert.equal(end.how, "crashed");
      assert.match(end.detail, /^\[1\.0\] Kernel panic - not syncing: why\n\[1\.1\] more/);
    }
  });

  it("is not taken in by the words of a panic in other text", async () => {
    const [vm, script] = await started();
    script.print(0, "$ grep -c 'Kernel panic - not syncing' log\r\n0\r\nsays: Kernel panic - not syncing: no\r\n");
    assert.equal(vm.state, "running");
    script.end("power-off");
    assert.equal((await vm.waitForEnd()).how, "power-off");
  });

  it("boots anew when a machine from a saved state resets, and fails what was asked of the old one", async () => {
    const [vm, script] = await started();
    const asked = vm.save();
    script.end("reset");
    await assert.rejects(asked, (e: unknown) => e instanceof VmError && e.code === "ended");
    // its guest's files are asked for now, which this one does not have
    assert.equal((await vm.waitForEnd()).how, "failed");
    assert.equal(script.starts.length, 1);
  });

  it("counts the time that a command waits for its turn", async () => {
    const [vm, script] = await started();
    script.print(3, "serving\n");
    void vm.exec("never ends").catch(() => {});
    const second = vm.exec("second", { timeoutMs: 5 });
    for (const fire of script.timers) fire();
    await assert.rejects(second, (e: unknown) => e instanceof VmError && e.code === "timeout");
    await vm.kill();
  });

  it("starts once", async () => {
    const script = new Script();
    const vm = new Vm(script.platform, { guest, saved });
    const both = await Promise.allSettled([vm.start(), vm.start()]);
    assert.deepEqual(
      both.map((r) => r.status),
      ["fulfilled", "rejected"],
    );
    assert.equal(script.starts.length, 1);
  });

  it("says that it has not been started to who asks something of its guest", async () => {
    const vm = new Vm(new Script().platform, { guest, saved });
    for (const asked of [vm.exec("true"), vm.stats()])
      await assert.rejects(asked, (e: unknown) => e instanceof VmError && e.code === "not-started");
  });

  it("fails every wait when the machine ends, with its last lines", async () => {
    const [vm, script] = await started();
    script.print(0, "last words\n");
    const waits = [vm.waitFor("never"), vm.stats(), vm.exec("true")];
    script.end("triple-fault", "registers");
    for (const wait of waits)
      await assert.rejects(
        wait,
        (e: unknown) => e instanceof VmError && e.code === "guest-crashed" && /last words/.test(e.message),
      );
  });

  it("keeps a bounded console", async () => {
    const [vm, script] = await started();
    const from = vm.mark();
    for (let i = 0; i < 40; i++) script.print(0, `${"y".repeat(100_000)}\n`);
    script.print(0, "the end");
    assert.ok(vm.consoleText.length < 2_200_000);
    assert.equal(await vm.waitFor("the end", { from }), "the end");
  });
});
