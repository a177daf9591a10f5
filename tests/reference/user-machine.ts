/** The engine as a machine for one instruction in user mode: selectors, memory and gates as 64-bit Linux has them, records of user-case.ts. */
import { Exit, SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import { createEngineMemory, FLAT_DATA, VirtualProcessor } from "../../src/cpu/vp/virtual-processor.js";
import { loadRuntime, silentHost } from "../bare/bare-machine.js";
import {
  At,
  CODE_BYTES,
  codeSize,
  DATA_PAGE,
  FX_BYTES,
  Outcome,
  RECORD_BYTES,
  type Records,
  USER_CODE,
  USER_CODE_END,
  WINDOW,
  WINDOW_BYTES,
} from "./user-case.js";

/** The system's part of memory, mapped for the supervisor only, at the start of the upper half as well. */
const HIGH = 0xffff800000000000n;
const TABLES = 0x10000;
const GDT = 0x4000;
const IDT = 0x5000;
const TSS = 0x6000;
const TRAP_STACK = 0x8000;
const HANDLERS = 0x20000;
const HANDLER_BYTES = 16;
/** Behind those of the vectors: where SYSCALL goes. */
const SYSCALL_HANDLER = 256;
const CODE_USER = 0x33;
const CODE_USER32 = 0x23;
const DATA_USER = 0x2b;
/** Linux's GDT from selector 8 on; what it fills for each thread is left empty. */
const DESCRIPTORS: readonly (readonly [high: number, low: number])[] = [
  [0x00cf9b00, 0xffff],
  [0x00af9b00, 0xffff],
  [0x00cf9300, 0xffff],
  [0x00cffb00, 0xffff],
  [0x00cff300, 0xffff],
  [0x00affb00, 0xffff],
  [0, 0],
  [0x00008b00, (TSS << 16) | 0x67],
  [0xffff8000, 0],
  ...Array<[number, number]>(5).fill([0, 0]),
  [0x0040f500, 0],
];
const TF = 0x100;
const IF = 0x200;

export class UserMachine {
  readonly #vp: VirtualProcessor;
  readonly #ram: DataView;
  readonly #below: Int32Array;

  constructor() {
    const vp = new VirtualProcessor(createEngineMemory(4 << 20, 2, true), 1, silentHost, {
      runtime: loadRuntime(),
      interpreter: undefined,
    });
    this.#vp = vp;
    const ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
    this.#ram = ram;
    this.#below = new Int32Array(vp.ram.buffer, vp.ram.byteOffset + DATA_PAGE, (WINDOW - DATA_PAGE) / 4);
    const entry = (at: number, low: number, high = 0): void => {
      ram.setUint32(at, low, true);
      ram.setUint32(at + 4, high, true);
    };
    const NX = 0x80000000;
    entry(TABLES, (TABLES + 0x1000) | 7);
    entry(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    entry(TABLES + 0x2008, (TABLES + 0x3000) | 7); // 2 MiB to 4 MiB
    for (let at = USER_CODE; at < USER_CODE_END; at += 0x1000)
      entry(TABLES + 0x3000 + ((at >> 12) & 0x1ff) * 8, at | 0x65);
    entry(TABLES + 0x3000 + ((DATA_PAGE >> 12) & 0x1ff) * 8, DATA_PAGE | 0x67, NX);
    entry(TABLES + 0x800, (TABLES + 0x4000) | 3);
    entry(TABLES + 0x4000, (TABLES + 0x5000) | 3);
    entry(TABLES + 0x5000, 0xe3);
    DESCRIPTORS.forEach(([high, low], i) => {
      entry(GDT + 8 + i * 8, low, high);
    });
    for (let n = 0; n <= SYSCALL_HANDLER; n++) vp.ram[HANDLERS + n * HANDLER_BYTES] = 0xf4;
    for (let n = 0; n < 256; n++) {
      const gate = [3, 4, 0x80].includes(n) ? 0xee01 : 0x8e01; // interrupt gates on stack 1 of the TSS
      entry(IDT + n * 16, (0x10 << 16) | ((HANDLERS + n * HANDLER_BYTES) & 0xffff), (HANDLERS & 0xffff0000) | gate);
      entry(IDT + n * 16 + 8, Number(HIGH >> 32n));
    }
    ram.setBigUint64(TSS + 0x24, HIGH + BigInt(TRAP_STACK), true);
    ram.setUint16(TSS + 0x66, 0x68, true);
    vp.ram.fill(0xcc, USER_CODE, USER_CODE_END);
    vp.setRegister(Vp.cr3, TABLES);
    vp.setRegister(Vp.cr4, 0x506a0); // PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
    vp.setRegister(Vp.efer, 0xd01);
    vp.setRegister(Vp.cr0, 0x80050033);
    vp.setRegister(Vp.xcr0, 3);
    vp.setRegister64(Vp.gdtrBase, HIGH + BigInt(GDT));
    vp.setRegister(Vp.gdtrLimit, 0x7f);
    vp.setRegister64(Vp.idtrBase, HIGH + BigInt(IDT));
    vp.setRegister(Vp.idtrLimit, 0xfff);
    vp.setSegment(SegIndex.tr, { selector: 0x40, attributes: 0x8b, limit: 0x67, base: 0 });
    vp.setRegister64(Vp.seg + SegIndex.tr * 16 + 8, HIGH + BigInt(TSS));
    vp.setSegment(SegIndex.ldtr, { selector: 0, attributes: SegAttr.unusable, limit: 0, base: 0 });
    vp.setRegister64(Vp.star, 0x0023001000000000n);
    vp.setRegister64(Vp.lstar, HIGH + BigInt(HANDLERS + SYSCALL_HANDLER * HANDLER_BYTES));
    vp.setRegister(Vp.sfmask, 0x257fd5);
    vp.view.setUint32(vp.base + Vp.singleStep, 1, true);
    vp.runtime.setCpl(3);
    vp.runtime.updateMode();
    vp.runtime.resetTlb();
  }

  /**
   * Runs the cases; the outcomes come in records of the same kind.
   * @param first number of the first case
   * @param progress [0] becomes the number of the case that is being run
   */
  run(records: Records, first: number, progress: Int32Array): Uint8Array {
    const out = records.bytes.slice(0, records.count * RECORD_BYTES);
    const o = new DataView(out.buffer);
    for (let i = 0; i < records.count; i++) {
      Atomics.store(progress, 0, first + i);
      try {
        this.#one(out, o, i * RECORD_BYTES);
      } catch (error) {
        throw new Error(`CASE=${first + i}: the engine has thrown`, { cause: error });
      }
    }
    return out;
  }

  #one(out: Uint8Array, o: DataView, at: number): void {
    const vp = this.#vp;
    const ram = this.#ram;
    const start = Number(o.getBigUint64(at + At.rip, true));
    const size = Math.min(CODE_BYTES, USER_CODE_END - start);
    vp.ram.set(out.subarray(at, at + size), start);
    vp.runtime.ramWritten(start, size);
    vp.ram.set(out.subarray(at + At.window, at + At.window + WINDOW_BYTES), WINDOW);
    this.#load(out, o, at);
    vp.setRegister(Vp.rip, start);
    let reason: number = vp.run(0);
    // what has been delivered may have run its HLT or not
    const from = vp.register64(Vp.rip) - HIGH - BigInt(HANDLERS);
    const delivered = from >= 0n && from <= BigInt(SYSCALL_HANDLER * HANDLER_BYTES + 1);
    if (reason === Exit.halt && delivered) reason = Exit.slice;
    if (reason !== Exit.slice && reason !== Exit.event)
      throw new Error(`exit ${reason} at ${vp.rip.toString(16)}: nothing in user mode may do that`);
    let trap: number = Outcome.completed;
    if (delivered) trap = Number(from) >> 4;
    this.#save(out, o, at);
    if (trap === SYSCALL_HANDLER) {
      trap = Outcome.systemCall;
      o.setBigUint64(at + At.rip, vp.register64(Vp.gpr + 8), true);
      o.setBigUint64(at + At.rflags, vp.register64(Vp.gpr + 88), true);
    } else if (trap >= 0) {
      // the frame: SS RSP RFLAGS CS RIP, and an error code perhaps
      const frame = TRAP_STACK - 40;
      const sp = Number(vp.register64(Vp.gpr + 32) - HIGH);
      o.setBigUint64(at + At.error, sp < frame ? ram.getBigUint64(sp, true) : 0n, true);
      o.setBigUint64(at + At.rip, ram.getBigUint64(frame, true), true);
      o.setUint16(at + At.cs, ram.getUint16(frame + 8, true), true);
      o.setBigUint64(at + At.rflags, ram.getBigUint64(frame + 16, true), true);
      o.setBigUint64(at + At.gpr + 32, ram.getBigUint64(frame + 24, true), true);
      o.setUint16(at + At.ss, ram.getUint16(frame + 32, true), true);
      // an instruction's own trap (INT1) is what a single step ends with too
      if (trap === 1) trap = Outcome.completed;
      else if (trap === 0x80) trap = Outcome.systemCall;
    }
    o.setInt32(at + At.trap, trap, true);
    o.setBigUint64(at + At.faultAddress, vp.register64(Vp.cr2), true);
    vp.ram.fill(0xcc, start, start + size);
    out.set(vp.ram.subarray(WINDOW, WINDOW + WINDOW_BYTES), at + At.window);
    const below = this.#below;
    let hash = 0;
    for (let i = 0; i < below.length; i++) {
      if (below[i] === 0) continue;
      hash = Math.imul(hash ^ below[i]! ^ (i << 20), 0x01000193);
      below[i] = 0;
    }
    o.setInt32(at + At.below, hash, true);
  }

  #load(out: Uint8Array, o: DataView, at: number): void {
    const vp = this.#vp;
    const { base } = vp;
    const narrow = codeSize(o, at) === 32;
    const flat = { ...FLAT_DATA, selector: DATA_USER, attributes: FLAT_DATA.attributes | 0x60 };
    const none = { selector: 0, attributes: SegAttr.unusable, limit: 0, base: 0 };
    vp.setSegment(SegIndex.cs, {
      selector: narrow ? CODE_USER32 : CODE_USER,
      attributes: 0xfb | (narrow ? SegAttr.big : SegAttr.long) | SegAttr.granular,
      limit: 0xffffffff,
      base: 0,
    });
    vp.setSegment(SegIndex.ss, flat);
    for (const s of [SegIndex.ds, SegIndex.es, SegIndex.fs, SegIndex.gs]) vp.setSegment(s, narrow ? flat : none);
    for (const [seg, from] of [
      [SegIndex.fs, At.fsBase],
      [SegIndex.gs, At.gsBase],
    ] as const) {
      if (narrow) break;
      const value = o.getBigUint64(at + from, true);
      vp.setRegister64(Vp.seg + seg * 16 + 8, value);
      vp.setRegister64(Vp.segBase + seg * 8, value);
    }
    vp.runtime.setCpl(3);
    vp.runtime.updateMode();
    vp.bytes.set(out.subarray(at + At.gpr, at + At.gpr + 128), base + Vp.gpr);
    vp.bytes.set(out.subarray(at + At.xmm, at + At.xmm + 256), base + Vp.xmm);
    vp.view.setUint32(base + Vp.mxcsr, o.getUint32(at + At.mxcsr, true), true);
    vp.view.setUint16(base + Vp.fcw, o.getUint16(at + At.fcw, true), true);
    const fsw = o.getUint16(at + At.fsw, true);
    vp.view.setUint16(base + Vp.fsw, fsw, true);
    vp.view.setUint16(base + Vp.ftw, o.getUint8(at + At.ftw), true);
    vp.view.setUint16(base + Vp.fop, o.getUint16(at + At.fop, true), true);
    vp.bytes.set(out.subarray(at + At.fip, at + At.fip + 16), base + Vp.fip);
    const top = (fsw >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const from = at + At.st + i * 16;
      vp.bytes.set(out.subarray(from, from + 10), base + Vp.x87 + ((top + i) & 7) * 16);
    }
    vp.runtime.setRflags(o.getUint32(at + At.rflags, true) | TF | IF);
  }
  #save(out: Uint8Array, o: DataView, at: number): void {
    const vp = this.#vp;
    const { base } = vp;
    out.set(vp.bytes.subarray(base + Vp.gpr, base + Vp.gpr + 128), at + At.gpr);
    out.fill(0, at + At.fx, at + At.fx + FX_BYTES);
    out.set(vp.bytes.subarray(base + Vp.xmm, base + Vp.xmm + 256), at + At.xmm);
    o.setUint32(at + At.mxcsr, vp.view.getUint16(base + Vp.mxcsr, true), true);
    o.setUint16(at + At.fcw, vp.view.getUint16(base + Vp.fcw, true), true);
    const fsw = vp.view.getUint16(base + Vp.fsw, true);
    o.setUint16(at + At.fsw, fsw, true);
    o.setUint8(at + At.ftw, vp.view.getUint16(base + Vp.ftw, true));
    o.setUint16(at + At.fop, vp.view.getUint16(base + Vp.fop, true), true);
    out.set(vp.bytes.subarray(base + Vp.fip, base + Vp.fip + 16), at + At.fip);
    const top = (fsw >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const from = base + Vp.x87 + ((top + i) & 7) * 16;
      out.set(vp.bytes.subarray(from, from + 10), at + At.st + i * 16);
    }
    o.setBigUint64(at + At.rip, vp.register64(Vp.rip), true);
    o.setBigUint64(at + At.error, 0n, true);
    o.setBigUint64(at + At.rflags, BigInt(vp.runtime.rflags() >>> 0), true);
    [At.es, At.cs, At.ss, At.ds, At.fs, At.gs].forEach((to, i) => {
      o.setUint16(at + to, vp.view.getUint16(base + Vp.seg + i * 16, true), true);
    });
    o.setBigUint64(at + At.fsBase, vp.register64(Vp.segBase + SegIndex.fs * 8), true);
    o.setBigUint64(at + At.gsBase, vp.register64(Vp.segBase + SegIndex.gs * 8), true);
  }
}
