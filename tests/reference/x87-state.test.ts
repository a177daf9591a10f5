/** What keeps and brings back the x87 and SSE state, against the processor of this machine: FXSAVE, FXRSTOR, XSAVE, XRSTOR, FNSTENV, FWAIT. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Vp } from "../../src/cpu/layout.js";
import {
  Batch,
  CASE_BYTES,
  difference,
  EngineRunner,
  Field,
  nativeProgram,
  runNative,
  WINDOW,
} from "./native-runner.js";
import { Random } from "./values.js";
import { extended, random64 } from "./x87-values.js";

const skip = nativeProgram() === undefined ? "no gcc or no x86-64" : false;
const COUNT = 200;
const FXSAVE_IMAGE = WINDOW - 256; // its second half is the window
const XSAVE_IMAGE = WINDOW + 256 - 576; // its header is at the end of the window

function fillState(random: Random, { view }: Batch, at: number, pending: boolean): void {
  const fcw = 0x340 | (pending ? random.below(63) : 0x3f);
  let fsw = random.u32() & 0x7f7f;
  if (!pending) fsw &= 0x7f00;
  if ((fsw & ~fcw & 0x3f) !== 0) fsw |= 0x8080;
  view.setUint16(at + Field.fcw, fcw, true);
  view.setUint16(at + Field.fsw, fsw, true);
  view.setUint8(at + Field.ftw, random.u32());
  for (let i = 0; i < 8; i++) {
    const [high, low] = extended(random);
    view.setBigUint64(at + Field.st + i * 16, low, true);
    view.setUint16(at + Field.st + i * 16 + 8, high, true);
  }
  for (let i = 0; i < 32; i++) view.setBigUint64(at + Field.xmm + i * 8, random64(random), true);
  view.setUint32(at + Field.mxcsr, 0x1f80 | random.below(64), true);
  for (let i = 0; i < 256; i += 8) view.setBigUint64(at + Field.window + i, random64(random), true);
  for (let i = 0; i < 16; i++) view.setBigUint64(at + Field.gpr + i * 8, random64(random), true);
}
const gpr = (n: number): number => Field.gpr + n * 8;
const RAX = gpr(0),
  RCX = gpr(1),
  RDX = gpr(2),
  RBX = gpr(3),
  RSI = gpr(6),
  RDI = gpr(7);

type Mask = (view: DataView, at: number) => void;
/** Runs the batch on both and compares; `forget` takes away of an outcome what is not defined. */
function check(batch: Batch, engine: EngineRunner, forget: Mask = () => {}): void {
  const nativeBytes = runNative(batch);
  const oursBytes = engine.run(batch);
  const native = new DataView(nativeBytes.buffer, nativeBytes.byteOffset);
  const ours = new DataView(oursBytes.buffer, oursBytes.byteOffset);
  const wrong: string[] = [];
  for (let i = 0; i < batch.count; i++) {
    const at = i * CASE_BYTES;
    forget(native, at);
    forget(ours, at);
    let d = difference(nativeBytes, oursBytes, at, { x87: true });
    const trap = native.getInt32(at + Field.trap, true);
    if (d === "" && trap < 0 && native.getUint16(at + Field.fcw, true) !== ours.getUint16(at + Field.fcw, true))
      d = `fcw ${ours.getUint16(at + Field.fcw, true).toString(16)}, not ${native.getUint16(at + Field.fcw, true).toString(16)}`;
    if (d !== "") wrong.push(`${batch.labels[i]}: ${d}`);
  }
  assert.equal(wrong.length, 0, `${wrong.length} of ${batch.count} differ\n  ${wrong.slice(0, 12).join("\n  ")}`);
}
const forgetSelector =
  (field: number): Mask =>
  (view, at) =>
    view.setUint32(at + field + 4, 0, true);

for (const wide of [false, true]) {
  const prefix = wide ? [0x48] : [];
  const name = wide ? "FXSAVE64" : "FXSAVE";
  test(`${name}: control part, registers, what it leaves alone`, { skip }, () => {
    const random = new Random(11);
    const batch = new Batch();
    for (let n = 0; n < COUNT; n++) {
      const registers = n % 2;
      const loads = registers
        ? [0x48, 0x8b, 0x47, 0x20, 0x48, 0x8b, 0x5f, 0x38, 0x48, 0x8b, 0x4f, 0x78]
        : [0x48, 0x8b, 0x07, 0x48, 0x8b, 0x5f, 0x08, 0x48, 0x8b, 0x4f, 0x10];
      const at = batch.add([...prefix, 0x0f, 0xae, 0x07, ...loads], `${name} #${n}`);
      fillState(random, batch, at, true);
      // instruction and data pointer are only kept by every processor while an exception waits
      if ((batch.view.getUint16(at + Field.fsw, true) & 0x80) !== 0) {
        batch.view.setUint16(at + Field.fop, random.below(0x800), true);
        batch.view.setUint32(at + Field.fip, random.u32(), true);
        batch.view.setUint32(at + Field.fdp, random.u32(), true);
      }
      batch.view.setBigUint64(at + RDI, BigInt(n % 50 === 49 ? FXSAVE_IMAGE + 8 : FXSAVE_IMAGE), true);
    }
    check(batch, new EngineRunner(), (view, at) => {
      if (wide || view.getInt32(at + Field.trap, true) >= 0) return;
      forgetSelector(RBX)(view, at);
      forgetSelector(RCX)(view, at);
    });
  });
  test(`${wide ? "FXRSTOR64" : "FXRSTOR"}: control, status and tag words as they can be`, { skip }, () => {
    const random = new Random(12);
    const batch = new Batch();
    for (let n = 0; n < COUNT; n++) {
      const at = batch.add([0x48, 0x89, 0x07, ...prefix, 0x0f, 0xae, 0x0f], `FXRSTOR #${n}`);
      fillState(random, batch, at, false);
      batch.view.setUint16(at + RAX + 4, random.u32() & 0xff, true);
      batch.view.setUint16(at + RAX + 6, 0, true);
      batch.view.setBigUint64(at + RDI, BigInt(FXSAVE_IMAGE), true);
    }
    check(batch, new EngineRunner());
  });
}

function xsaveEngine(): EngineRunner {
  const engine = new EngineRunner();
  const { vp } = engine.machine;
  vp.setRegister(Vp.cr4, 0x406a0);
  vp.setRegister(Vp.xcr0, 3);
  return engine;
}
test("XSAVE, XSAVEC: which parts they write", { skip }, () => {
  const random = new Random(13);
  const batch = new Batch();
  for (let n = 0; n < COUNT; n++) {
    const compact = n % 2 === 1;
    const at = batch.add(compact ? [0x0f, 0xc7, 0x27] : [0x0f, 0xae, 0x27], `${compact ? "XSAVEC" : "XSAVE"} #${n}`);
    fillState(random, batch, at, false);
    batch.view.setBigUint64(at + RAX, BigInt(random.below(4)), true);
    batch.view.setBigUint64(at + RDX, 0n, true);
    batch.view.setBigUint64(at + RDI, BigInt(n % 50 === 49 ? XSAVE_IMAGE - 16 : XSAVE_IMAGE), true);
  }
  check(batch, xsaveEngine());
});
test("XRSTOR: parts, initial states, what its header may not say", { skip }, () => {
  const random = new Random(14);
  const batch = new Batch();
  for (let n = 0; n < COUNT; n++) {
    const at = batch.add([0x0f, 0xae, 0x2f], `XRSTOR #${n}`);
    fillState(random, batch, at, false);
    batch.view.setBigUint64(at + RAX, BigInt(random.below(4)), true);
    batch.view.setBigUint64(at + RDX, 0n, true);
    batch.view.setBigUint64(at + RDI, BigInt(XSAVE_IMAGE), true);
    const header = at + Field.window + XSAVE_IMAGE + 512 - WINDOW;
    for (let i = 0; i < 64; i += 8) batch.view.setBigUint64(header + i, 0n, true);
    batch.view.setUint32(header, random.below(4), true);
    if (n % 2 === 1) batch.view.setBigUint64(header + 8, (1n << 63n) | BigInt(random.below(4)), true);
    if (n % 5 === 4) batch.view.setUint8(header + random.below(64), 0x40);
  }
  // the window holds parts of the image that are random: registers XMM6 and up
  check(batch, xsaveEngine());
});

test("FNSTENV after an exception: where the instruction and its operand were", { skip }, () => {
  const random = new Random(15);
  const batch = new Batch();
  for (let n = 0; n < COUNT; n++) {
    const narrow = n % 3 === 2;
    const first = [
      [0xd9, 0x07],
      [0xd8, 0x07],
      [0xdc, 0x4f, 0x04],
      [0xde, 0xc1],
      [0xd9, 0xfa],
      [0xdd, 0x1f],
    ][n % 6]!;
    const at = batch.add(
      [...first, 0xd9, 0xc9, ...(narrow ? [0x66] : []), 0xd9, 0x36].filter(
        (_, i) => i < first.length || i >= first.length + 2,
      ),
      `FNSTENV #${n}`,
    );
    fillState(random, batch, at, false);
    // invalid operations are not masked, and everything is one
    batch.view.setUint16(at + Field.fcw, 0x37e, true);
    batch.view.setUint8(at + Field.ftw, n % 4 === 0 ? 0 : 0xff);
    for (let i = 0; i < 2; i++) {
      batch.view.setBigUint64(at + Field.st + i * 16, 0x8000000000000001n, true);
      batch.view.setUint16(at + Field.st + i * 16 + 8, 0x7fff, true);
    }
    batch.view.setBigUint64(at + RDI, BigInt(WINDOW + 0x40 + random.below(16)), true);
    batch.view.setBigUint64(at + RSI, BigInt(WINDOW), true);
  }
  check(batch, new EngineRunner(), (view, at) => {
    // selectors and the opcode, whose places they share
    const narrow = view.getUint8(at + 2) === 0x66 || view.getUint8(at + 3) === 0x66;
    if (narrow) {
      view.setUint16(at + Field.window + 8, 0, true);
      view.setUint16(at + Field.window + 12, 0, true);
    } else {
      view.setUint16(at + Field.window + 16, 0, true);
      view.setUint16(at + Field.window + 24, 0, true);
      // without an exception some processors say nothing
      if ((view.getUint16(at + Field.window + 4, true) & 0x80) === 0)
        for (let i = 12; i < 28; i++) view.setUint8(at + Field.window + i, 0);
    }
    if (narrow && (view.getUint16(at + Field.window + 2, true) & 0x80) === 0)
      for (let i = 6; i < 14; i++) view.setUint8(at + Field.window + i, 0);
  });
});

test("FWAIT and waiting instructions deliver an exception before they do anything", { skip }, () => {
  const random = new Random(16);
  const batch = new Batch();
  const codes = [
    [0x9b],
    [0x9b, 0xdb, 0xe3],
    [0xd9, 0xe8],
    [0xdb, 0xe3],
    [0xdb, 0xe2],
    [0xdf, 0xe0],
    [0xd9, 0x3f],
    [0xdd, 0x3f],
    [0xd9, 0x2f],
    [0xd9, 0xd0],
    [0xd9, 0xf7],
    [0xdd, 0xc1],
  ];
  for (let n = 0; n < COUNT; n++) {
    const at = batch.add(
      codes[n % codes.length]!,
      `waiting ${codes[n % codes.length]!.map((b) => b.toString(16)).join(" ")} #${n}`,
    );
    fillState(random, batch, at, true);
    batch.view.setUint8(at + Field.ftw, 0);
    batch.view.setBigUint64(at + RDI, BigInt(WINDOW), true);
  }
  check(batch, new EngineRunner());
});
