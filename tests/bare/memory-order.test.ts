/**
 * What a device's side, on another thread, may see: behind a LOCK prefix, XCHG with memory or MFENCE a load does not pass a store (Intel
 * SDM vol. 3, "Memory Ordering"). Drivers rely on it where they go to sleep: mask cleared, barrier, is there more?
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { Exit, Vp } from "../../src/cpu/layout.js";
import { createBareMachine } from "./bare-machine.js";
import { assemble } from "./nasm.js";

const CODE = 0x200000;
/** The guest's word and the other thread's, each in a line of its own. */
const MINE = 0x300000;
const THEIRS = 0x300040;
/** What the guest found in the other thread's word, by round. */
const SEEN = 0x400000;
const ROUNDS = 200_000;
/** Written before each round, each in a page of its own: the round's store has to wait behind what the caches do not have. */
const FAR = 0x800000;
const FAR_STORES = 24;
const FAR_STEP = 0x10040;

const FAR_WRITES = Array.from({ length: FAR_STORES }, (_, i) => `mov [rbx + ${i * FAR_STEP}], ecx`).join("\n");

/** Writes rounds to its word and looks at the guest's, until the guest is through; answers with what it saw. */
const PEER = `
const { workerData: { buffer, mine, theirs, rounds }, parentPort } = require("node:worker_threads");
const words = new Int32Array(buffer);
const seen = [0];
parentPort.postMessage("ready");
for (let i = 1; Atomics.load(words, mine) < rounds; i++) {
  Atomics.store(words, theirs, i);
  seen.push(Atomics.load(words, mine));
}
parentPort.postMessage(Int32Array.from(seen));
`;

/** @returns rounds whose look the other thread's later writes were compared with: 0 if the two ran one after the other */
async function run(store: string): Promise<number> {
  const { vp } = createBareMachine(16 << 20, {}, 1, false);
  const { bytes } = assemble(
    `mov ecx, 1\nmov ebx, ${FAR}\nround: ${FAR_WRITES}\n${store}\nmov eax, [${THEIRS}]\nmov [rcx * 4 + ${SEEN}], eax\nadd ebx, 64\nand ebx, ${FAR | 0xffff}\ninc ecx\ncmp ecx, ${ROUNDS}\njle round\nhlt`,
    64,
    CODE,
  );
  vp.ram.set(bytes, CODE);
  vp.setRegister(Vp.rip, CODE);
  const word = (at: number): number => (vp.ram.byteOffset + at) >> 2;
  const peer = new Worker(PEER, {
    eval: true,
    workerData: { buffer: vp.ram.buffer, mine: word(MINE), theirs: word(THEIRS), rounds: ROUNDS },
  });
  await once(peer, "message");
  let reason: number = Exit.slice;
  while (reason === Exit.slice) reason = vp.run(100_000);
  assert.equal(reason, Exit.halt);
  const [theirs] = (await once(peer, "message")) as [Int32Array];
  await peer.terminate();
  const mine = new Int32Array(vp.ram.buffer, vp.ram.byteOffset + SEEN, ROUNDS + 1);
  let met = 0;
  for (let round = 1; round <= ROUNDS; round++) {
    // the first of their writes that this look did not see must have been followed by one that saw this round
    const missed = theirs[mine[round]! + 1];
    if (missed === undefined) continue;
    if (missed < ROUNDS) met++;
    assert.ok(missed >= round, `round ${round}: neither saw the other`);
  }
  return met;
}

// interpreted: a loop of the second tier is too quick to be seen out of order (tests/regions/fences.test.ts)
for (const [name, store] of [
  ["lock add", `lock add dword [${MINE}], 1`],
  ["mfence", `mov [${MINE}], ecx\nmfence`],
] as const)
  test(`${name}: of two that write and then look at least one sees the other`, async () => {
    let met = 0;
    for (let i = 0; i < 10 && met === 0; i++) met = await run(store);
    assert.ok(met > 0, "the two always ran one after the other");
  });
