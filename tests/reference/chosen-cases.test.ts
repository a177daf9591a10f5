/** Single instructions in user mode that were once wrong here, most of them found by random-bytes.test, against the processor of this machine. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Decoder } from "../../src/cpu/decode/decode.js";
import { partsOf } from "./instruction-bytes.js";
import { hostVendor, openOutcome } from "./open-outcomes.js";
import {
  At,
  COMPATIBILITY,
  codeSize,
  compatibilityMode,
  Outcome,
  outcomeName,
  RECORD_BYTES,
  Records,
  runSandboxed,
  sandboxedProgram,
  USER_CODE,
  USER_CODE_END,
  WINDOW,
  WINDOW_END,
} from "./user-case.js";
import { userDifference } from "./user-difference.js";
import { UserMachine } from "./user-machine.js";

const [RAX, RCX, RDX, , RSP, RBP, RSI, RDI, R8] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
/** The last address below the hole of the non-canonical ones. */
const TOP = 0x7fffffffffffn;
const [UD, GP, SS, PF, MF] = [6, 13, 12, 14, 16];
const DONE = Outcome.completed;

interface Chosen {
  readonly name: string;
  /** Bytes in hexadecimal. */
  readonly code: string;
  /** Outcome on Intel's processors. */
  readonly outcome: number;
  /** General registers by number; the others point into the window. */
  readonly registers?: Readonly<Record<number, bigint | number>>;
  /** 64-bit words of memory from its address in the window on. */
  readonly memory?: Readonly<Record<number, bigint>>;
  readonly fcw?: number;
  readonly fsw?: number;
  /** The code's last byte is the last one before the page that is absent. */
  readonly atEnd?: true;
  readonly compatibility?: true;
}
const CASES: readonly Chosen[] = [
  { name: "15 bytes are an instruction", code: `${"26".repeat(14)} 90`, outcome: DONE },
  { name: "16 bytes are not", code: `${"26".repeat(15)} 90`, outcome: GP },
  { name: "nor is an undefined one of 16", code: `${"26".repeat(14)} 0f 0b`, outcome: GP },
  { name: "15 prefixes", code: "66".repeat(16), outcome: GP },
  { name: "the fetch of an undefined instruction", code: "0f 3a b7", outcome: PF, atEnd: true },
  { name: "of its immediate", code: "0f 3a b7 c0", outcome: PF, atEnd: true },
  { name: "and when it is all there", code: "0f 3a b7 c0 00", outcome: UD, atEnd: true },
  { name: "of one without ModRM", code: "0f 04", outcome: UD, atEnd: true },
  { name: "of a locked one", code: "f0 8b 80", outcome: PF, atEnd: true },
  { name: "of a group without a member", code: "c7 c8 00 00 00", outcome: PF, atEnd: true },
  { name: "a control register that is none", code: "0f 20 f8", outcome: UD },
  { name: "a debug register that is none", code: "44 0f 23 c0", outcome: UD },
  { name: "an operand that ends in the hole", code: "8b 00", outcome: GP, registers: { [RAX]: TOP } },
  { name: "one that is the stack's", code: "8b 45 00", outcome: SS, registers: { [RBP]: TOP - 1n } },
  { name: "a push that ends there", code: "50", outcome: SS, registers: { [RSP]: TOP + 2n } },
  { name: "x87 operand of the stack", code: "db 45 00", outcome: SS, registers: { [RBP]: 1n << 60n } },
  { name: "bit string of the stack", code: "48 0f ab 4d 00", outcome: SS, registers: { [RBP]: 1n << 60n, [RCX]: 1 } },
  { name: "POP to memory: the stack", code: "8f 00", outcome: SS, registers: { [RSP]: 1n << 60n } },
  { name: "POP to memory: the memory", code: "8f 00", outcome: GP, registers: { [RAX]: 1n << 60n } },
  { name: "PUSH from memory: the stack", code: "ff 30", outcome: SS, registers: { [RSP]: 1n << 60n } },
  { name: "a bit string of 32-bit addresses", code: "67 48 0f b3 08", outcome: DONE, registers: { [RCX]: 1n << 40n } },
  { name: "CLFLUSH", code: "0f ae 38", outcome: PF, registers: { [RAX]: 0x1000 } },
  { name: "CMPXCHG8B writes", code: "0f c7 08", outcome: PF, registers: { [RAX]: USER_CODE } },
  { name: "STOSB leaves RSI alone", code: "67 aa", outcome: DONE, registers: { [RSI]: 1n << 40n } },
  { name: "REP STOSB that faults", code: "67 f3 aa", outcome: PF, registers: { [RDI]: 1n << 40n, [RCX]: 5 } },
  {
    name: "REP LODSB that faults",
    code: "67 f3 ac",
    outcome: PF,
    registers: { [RSI]: 1n << 40n, [RCX]: (1n << 40n) | 5n },
  },
  { name: "REP MOVSB of nothing", code: "67 f3 a4", outcome: DONE, registers: { [RCX]: 0, [RDI]: 1n << 40n } },
  { name: "REPNE SCASB of nothing", code: "67 f2 ae", outcome: DONE, registers: { [RCX]: 0, [RDI]: 1n << 40n } },
  { name: "REPNE SCASB in the middle", code: "f2 ae", outcome: DONE, registers: { [RCX]: 5, [RAX]: 3 } },
  { name: "CMPSB reads RDI first", code: "a6", outcome: GP, registers: { [RSI]: 0x1000, [RDI]: 1n << 60n } },
  { name: "XGETBV with F2", code: "f2 0f 01 d0", outcome: UD, registers: { [RCX]: 0 } },
  { name: "RDSEED with F2", code: "f2 0f c7 f8", outcome: UD },
  { name: "RDFSBASE with 66", code: "66 f3 0f ae c0", outcome: DONE },
  { name: "ENTER looks at the new top", code: "c8 00 20 00", outcome: PF },
  {
    name: "POP FS reads two bytes",
    code: "0f a1",
    outcome: GP,
    registers: { [RSP]: WINDOW_END - 2 },
    memory: { 504: 0x1234n << 48n },
  },
  { name: "MOV from FS with REX.R", code: "44 8c e0", outcome: DONE },
  { name: "PAUSE with REX.B", code: "f3 41 90", outcome: DONE, registers: { [R8]: 1 } },
  { name: "BSF of 0", code: "0f bc c1", outcome: DONE, registers: { [RAX]: -1n, [RCX]: 1n << 40n } },
  { name: "MOVSXD of 16 bits reads two bytes", code: "66 63 08", outcome: DONE, registers: { [RAX]: WINDOW_END - 2 } },
  { name: "RIP and a displacement over 2^31", code: "48 8d 05 ff ff ff 7f", outcome: DONE },
  { name: "FXSAVE's end", code: "0f ae 00", outcome: PF, registers: { [RAX]: WINDOW_END - 496 } },
  { name: "MMX and an exception that waits", code: "0f fc c1", outcome: MF, fcw: 0x340, fsw: 0x8081 },
  { name: "CVTPI2PS from memory does not wait", code: "0f 2a 08", outcome: DONE, fcw: 0x340, fsw: 0x8081 },
  { name: "FLD of a denormal that is not masked", code: "dd 00", outcome: DONE, fcw: 0x37d, memory: { 0: 1n } },
  { name: "FISTP without a result", code: "df 38", outcome: DONE, fcw: 0x37e, registers: { [RAX]: 0x1000 } },
  { name: "INT3", code: "cc", outcome: 3 },
  { name: "SYSCALL", code: "0f 05", outcome: Outcome.systemCall },
  {
    name: "far return to 32-bit code cuts its offset",
    code: "48 cb",
    outcome: DONE,
    memory: { 0: 0x5500200800n, 8: 0x23n },
  },
  { name: "PUSH ES writes two bytes", code: "06", outcome: DONE, compatibility: true },
  {
    name: "BOUND reads no further",
    code: "62 10",
    outcome: 5,
    registers: { [RAX]: WINDOW_END - 4, [RDX]: 0 },
    memory: { 504: 5n << 32n },
    compatibility: true,
  },
  { name: "VEX.vvvv without use", code: "c4 c3 bb f0 f0 0c", outcome: UD, compatibility: true },
  { name: "a store through CS", code: "2e 89 08", outcome: GP, compatibility: true },
  { name: "a load through CS", code: "2e 8b 08", outcome: DONE, compatibility: true },
  { name: "LES", code: "c4 10", outcome: DONE, memory: { 0: 0x2b_12345678n }, compatibility: true },
  { name: "AAM by 0", code: "d4 00", outcome: 0, compatibility: true },
];

function addCase(records: Records, c: Chosen): void {
  const { bytes, view } = records;
  const at = records.count++ * RECORD_BYTES;
  const code = [...c.code.replaceAll(" ", "").matchAll(/../g)].map(([b]) => Number.parseInt(b, 16));
  bytes.fill(0xcc, at, at + 32);
  bytes.set(code, at);
  view.setBigUint64(at + At.rip, BigInt(c.atEnd ? USER_CODE_END - code.length : USER_CODE + 0x400), true);
  if (c.compatibility) view.setUint32(at + At.options, COMPATIBILITY, true);
  for (let i = 0; i < 16; i++)
    view.setBigUint64(at + At.gpr + i * 8, BigInt.asUintN(64, BigInt(c.registers?.[i] ?? WINDOW)), true);
  for (const [offset, word] of Object.entries(c.memory ?? {}))
    view.setBigUint64(at + At.window + Number(offset), word, true);
  view.setUint32(at + At.rflags, 0x202, true);
  view.setUint32(at + At.mxcsr, 0x1f80, true);
  view.setUint16(at + At.fcw, c.fcw ?? 0x37f, true);
  view.setUint16(at + At.fsw, c.fsw ?? 0, true);
}

const skip = sandboxedProgram() === undefined ? "no gcc, or no x86-64" : false;
test("instructions that were wrong once do what this machine's processor does", { skip }, () => {
  const list = compatibilityMode() ? CASES : CASES.filter((c) => !c.compatibility);
  const vendor = hostVendor();
  const records = new Records(list.length);
  for (const c of list) addCase(records, c);
  const nativeBytes = runSandboxed(records);
  const native = new DataView(nativeBytes.buffer, nativeBytes.byteOffset);
  const ours = new DataView(new UserMachine().run(records, 0, new Int32Array(new SharedArrayBuffer(4))).buffer);
  const decoder = new Decoder();
  const wrong: string[] = [];
  list.forEach(({ name, outcome }, i) => {
    const at = i * RECORD_BYTES;
    const [trap, ourTrap] = [native, ours].map((v) => v.getInt32(at + At.trap, true)) as [number, number];
    if (ourTrap !== outcome) wrong.push(`${name}: ${outcomeName(ourTrap)}, not ${outcomeName(outcome)}`);
    const code = codeSize(records.view, at);
    const room = Math.min(32, USER_CODE_END - Number(records.view.getBigUint64(at + At.rip, true)));
    const known = decoder.decode(records.bytes, at, at + room, code) === "ok";
    const instruction = known ? decoder.out : undefined;
    const faultAddress = ours.getBigUint64(at + At.faultAddress, true);
    const c = { before: records.view, native, ours, at, instruction, faultAddress };
    const d = userDifference(c);
    if (d === "" || openOutcome(c, trap, ourTrap, partsOf(records.bytes, at, code), vendor) !== undefined) return;
    wrong.push(`${name}: ${d}`);
  });
  assert.deepEqual(wrong, []);
});
