/** Regions that come later than they were asked for: what the guest may do in between, batches, and the thread that makes them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Exit, Vp } from "../../src/cpu/layout.js";
import {
  BatchCompiler,
  type FinishedBatch,
  MAX_BATCH,
  type RegionCompiler,
  type RegionRequest,
} from "../../src/cpu/region/batch-compiler.js";
import { MAX_IN_FLIGHT, type RegionCounters } from "../../src/cpu/region/regions.js";
import { WorkerCompiler } from "../../src/host/node/worker-compiler.js";
import { type BareMachine, createBareMachine } from "../bare/bare-machine.js";
import { assemble } from "../bare/nasm.js";

const CODE = 0x200000;
const LOOP = "loop1: add rax, 3\ndec rcx\njnz loop1\nhlt";
const ROUNDS = 4_000_000;

/** Answers when the test says so. */
class HeldCompiler implements RegionCompiler {
  readonly requests: RegionRequest[] = [];
  readonly #compiler: BatchCompiler;
  #answer: FinishedBatch | undefined;
  constructor(constants: { readonly base: number; readonly shared: boolean }) {
    this.#compiler = new BatchCompiler(constants);
  }
  request(requests: readonly RegionRequest[]): void {
    this.requests.push(...requests);
  }
  get ready(): boolean {
    return this.#answer !== undefined;
  }
  take(): FinishedBatch | undefined {
    const answer = this.#answer;
    this.#answer = undefined;
    return answer;
  }
  /** Answers everything so far by one module. */
  release(): void {
    this.#answer = { batch: this.#compiler.compile(this.requests.splice(0)), backgroundMs: 1 };
  }
}
function heldMachine(): BareMachine & { readonly held: HeldCompiler } {
  let held: HeldCompiler | undefined;
  const machine = createBareMachine(8 << 20, {}, 1, {
    together: 1,
    compiler: (constants) => {
      held = new HeldCompiler(constants);
      return held;
    },
  });
  return { ...machine, held: held! };
}
function load({ vp }: BareMachine, source: string, at = CODE): void {
  const { bytes } = assemble(source, 64, at);
  vp.ram.set(bytes, at);
  vp.runtime.ramWritten(at, bytes.length);
}
/** Runs the loop that is at CODE. @param until looked at between two slices */
function run({ vp }: BareMachine, until: () => boolean = () => false): void {
  while (!until()) {
    const reason = vp.run(100_000);
    if (reason === Exit.halt) return;
    assert.equal(reason, Exit.slice);
  }
}
function start({ vp }: BareMachine): void {
  vp.setRegister(Vp.gpr, 0);
  vp.setRegister(Vp.gpr + 8, ROUNDS);
  vp.setRegister(Vp.rip, CODE);
}
/** Samples the processor at an address until it is hot. */
function heat({ vp }: BareMachine, at: number): void {
  vp.setRegister(Vp.rip, at);
  vp.runtime.lookup(BigInt(at));
  for (let i = 0; i < 100; i++) vp.regions!.sample();
}

test("the guest goes on until its region comes, and ends as it would have", () => {
  const m = heldMachine();
  load(m, LOOP);
  start(m);
  run(m, () => m.held.requests.length > 0);
  const { counters } = m.vp.regions!;
  assert.deepEqual([counters.requested, counters.installed], [1, 0]);
  // no second request while the first has no answer
  for (let i = 0; i < 100; i++) assert.equal(m.vp.run(50_000), Exit.slice);
  assert.equal(m.held.requests.length, 1);
  m.held.release();
  run(m);
  assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * 3));
  const after = m.vp.regions!.counters;
  assert.deepEqual([after.requested, after.installed, after.stale, after.modules], [1, 1, 0, 1]);
  assert.equal(after.backgroundMs, 1);
  // in the region no sample asks for it again
  start(m);
  run(m);
  assert.equal(m.vp.regions!.counters.requested, 1);
});

test("a region whose code has changed since it was asked for is not taken, and may be asked for again", () => {
  const m = heldMachine();
  load(m, LOOP);
  start(m);
  run(m, () => m.held.requests.length > 0);
  load(m, LOOP.replace("3", "5"));
  m.held.release();
  start(m);
  run(m);
  assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * 5));
  const { installed, stale, requested } = m.vp.regions!.counters;
  assert.deepEqual([installed, stale, requested], [0, 1, 2]);
  m.held.release();
  start(m);
  run(m);
  assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * 5));
  assert.equal(m.vp.regions!.counters.installed, 1);
  // and it dies with its code like any other
  load(m, LOOP);
  start(m);
  run(m);
  assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * 3));
  assert.equal(m.vp.regions!.counters.dead, 1);
});

test("bytes that were changed without a word between request and answer are noticed too", () => {
  const m = heldMachine();
  // a part that the interpreter has not come to: no block there marks its line
  load(m, `jmp loop1\nalign 64\n${LOOP.replace("hlt", "nop\nalign 64\nhlt")}`);
  start(m);
  run(m, () => m.held.requests.length > 0);
  const answer = new BatchCompiler({ base: m.vp.base, shared: true }).compile([...m.held.requests] as RegionRequest[])
    .regions[0]!;
  m.vp.ram[CODE + answer.pages[0]!.end - 1] = 0x90 ^ 0xff;
  m.held.release();
  m.vp.regions!.sample();
  assert.deepEqual([m.vp.regions!.counters.installed, m.vp.regions!.counters.stale], [0, 1]);
});

test("while a request is under way, all blocks may be thrown away", () => {
  for (const decodedAgain of [false, true]) {
    const m = heldMachine();
    load(m, LOOP);
    start(m);
    run(m, () => m.held.requests.length > 0);
    m.vp.runtime.flushArena();
    if (decodedAgain) assert.equal(m.vp.run(100), Exit.slice);
    m.held.release();
    m.vp.regions!.sample();
    const { installed, stale } = m.vp.regions!.counters;
    assert.deepEqual([installed, stale], decodedAgain ? [1, 0] : [0, 1]);
    run(m);
    assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * 3));
  }
});

test("so many requests are under way at most, and one module may have several regions", () => {
  const m = heldMachine();
  const at = (i: number): number => CODE + i * 64;
  for (let i = 0; i < MAX_IN_FLIGHT + 3; i++) {
    load(m, LOOP.replace("3", String(i + 1)), at(i));
    heat(m, at(i));
  }
  assert.equal(m.held.requests.length, MAX_IN_FLIGHT);
  const { postponed, requested } = m.vp.regions!.counters;
  assert.ok(postponed >= 3 && requested === MAX_IN_FLIGHT);
  m.held.release();
  m.vp.regions!.sample();
  const { installed, modules } = m.vp.regions!.counters;
  assert.deepEqual([installed, modules], [MAX_IN_FLIGHT, 1]);
  // there is room again for what the processor is at, and for others
  heat(m, at(MAX_IN_FLIGHT));
  assert.equal(m.held.requests.length, 2);
  for (const i of [0, 1, MAX_IN_FLIGHT - 1, MAX_IN_FLIGHT]) {
    start(m);
    m.vp.setRegister(Vp.rip, at(i));
    run(m);
    assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * (i + 1)));
  }
  // one of them changes: the others stay
  load(m, LOOP, at(1));
  m.vp.regions!.sample();
  assert.equal(m.vp.regions!.counters.dead, 1);
  start(m);
  run(m);
  assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS));
});

test("a region over two pages is not taken when its second page has changed, and dies with it", () => {
  const m = heldMachine();
  const far = (n: number): string => `f: add rax, ${n}\nret`;
  const FAR = CODE + 0x1000;
  load(m, `loop1: call ${FAR}\ndec rcx\njnz loop1\nhlt`);
  /** Answers what was asked for when the second page has become this. */
  const again = (n: number): RegionCounters => {
    load(m, far(n), FAR);
    m.held.release();
    start(m);
    m.vp.setRegister(Vp.gpr + 32, 0x308000);
    run(m);
    assert.equal(m.vp.register64(Vp.gpr), BigInt(ROUNDS * n));
    return m.vp.regions!.counters;
  };
  load(m, far(3), FAR);
  start(m);
  m.vp.setRegister(Vp.gpr + 32, 0x308000);
  run(m, () => m.held.requests.length > 0);
  assert.ok(m.held.requests[0]!.pages.some((page) => page.distance === 0x1000 && page.entered.length > 0));
  const changed = again(5);
  assert.deepEqual([changed.installed, changed.stale], [0, 1]);
  const same = again(5);
  assert.ok(same.installed > 0 && same.dead === 0);
  assert.equal(again(7).dead, same.installed);
});

test("a full table makes room: all go, and what is hot comes back", () => {
  const machine = createBareMachine(8 << 20, {}, 1, { together: 1, slots: 4 });
  const { regions } = machine.vp;
  for (let round = 0; round < 3; round++)
    for (let i = 0; i < 6; i++) {
      const at = CODE + i * 0x1000;
      if (round === 0) load(machine, LOOP, at);
      heat(machine, at);
      machine.vp.setRegister(Vp.gpr, 0);
      machine.vp.setRegister(Vp.gpr + 8, 1000);
      machine.vp.setRegister(Vp.rip, at);
      run(machine);
      assert.equal(machine.vp.register64(Vp.gpr), 3000n);
    }
  const { installed, dead, refused } = regions!.counters;
  assert.ok(installed > 4 && dead >= installed - 3 && refused === 0, JSON.stringify(regions!.counters));
});

/** Eight ways out of an indirect jump: it looks its target up in a table in the engine's memory. */
const SWITCH = `loop1: mov rdx, rcx
and edx, 7
lea rsi, [rel table]
jmp [rsi + rdx * 8]
${Array.from({ length: 8 }, (_, i) => `way${i}: add rax, ${i + 1}\njmp next`).join("\n")}
next: dec rcx
jnz loop1
hlt
align 8
table: dq ${Array.from({ length: 8 }, (_, i) => `way${i}`).join(", ")}`;

test("what comes out depends on the requests alone, whoever compiles them", async () => {
  const m = heldMachine();
  load(m, SWITCH);
  for (let i = 1; i < 4; i++) load(m, LOOP.replace("3", String(i)), CODE + i * 0x1000);
  start(m);
  run(m, () => m.held.requests.length > 0);
  for (let i = 1; i < 4; i++) heat(m, CODE + i * 0x1000);
  const requests = [...m.held.requests];
  assert.equal(requests.length, 4);
  const first = new BatchCompiler({ base: m.vp.base, shared: true }).emit(requests);
  const compiler = new BatchCompiler({ base: m.vp.base, shared: true });
  compiler.emit([requests[3]!]);
  assert.deepEqual(compiler.emit(structuredClone(requests)), first);
  // the table of the indirect jump, and records of procedures
  assert.ok(first.kept.length > 4096);
  assert.ok(first.regions[0]!.instructions > 20);

  const thread = new WorkerCompiler({ base: m.vp.base, shared: true });
  try {
    thread.request(requests);
    const regions: unknown[] = [];
    while (regions.length < requests.length) {
      const done = thread.take();
      if (done === undefined) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      assert.ok(done.batch.regions.length <= MAX_BATCH && done.backgroundMs > 0);
      const alone = compiler.emit(requests.slice(regions.length, regions.length + done.batch.regions.length));
      assert.equal(done.batch.bytes, alone.bytes.length);
      assert.deepEqual(done.batch.kept, alone.kept);
      regions.push(...done.batch.regions);
    }
    assert.deepEqual(regions, first.regions);
  } finally {
    thread.stop();
  }
});

test("a processor whose thread never comes to its event loop gets its regions from another thread", () => {
  let thread: WorkerCompiler | undefined;
  const m = createBareMachine(8 << 20, {}, 1, {
    compiler: (constants) => {
      thread = new WorkerCompiler(constants);
      return thread;
    },
    now: () => Number(process.hrtime.bigint()),
  });
  try {
    load(m, SWITCH);

    const until = Date.now() + 60_000;
    while (m.vp.regions!.counters.installed === 0 && Date.now() < until) {
      start(m);
      run(m);
      assert.equal(m.vp.register64(Vp.gpr), BigInt((ROUNDS / 8) * 36));
    }
    const { counters } = m.vp.regions!;
    // one that was asked for since may have no answer yet
    assert.ok(counters.installed <= counters.requested - counters.stale);
    assert.ok(counters.installed > 0 && counters.longestInstallUs > 0 && counters.backgroundMs > 0);
    start(m);
    run(m);
    assert.equal(m.vp.register64(Vp.gpr), BigInt((ROUNDS / 8) * 36));
  } finally {
    thread?.stop();
  }
});
