/**
 * A bare machine with descriptor tables, a TSS, and a handler for every vector that halts: for tests of what system
 * instructions, exceptions and mode changes do. A program ends by HLT or by an exception; the outcome tells which.
 */
import { Exit, SEG_BYTES, SegAttr, SegIndex, Vp } from "../../src/cpu/layout.js";
import { MsrFile } from "../../src/cpu/vp/msr.js";
import {
  FLAT_DATA,
  type ProcessorHost,
  type SegmentState,
  type VirtualProcessor,
} from "../../src/cpu/vp/virtual-processor.js";
import { createBareMachine } from "./bare-machine.js";
import { type Assembled, assemble } from "./nasm.js";

export const GDT = 0x4000;
/** Tables of protected mode without long mode. */
export const IDT32 = 0xc000;
export const TSS32 = 0xd000;
export const IDT = 0x5000;
export const TSS = 0x6000;
export const HANDLERS = 0x7000;
export const RSP0 = 0x9000;
export const IST1 = 0xa000;
export const IST2 = 0xb000;
export const STACK = 0x20000;
export const USER_STACK = 0x28000;
export const DATA = 0x30000;
export const CODE = 0x40000;

/** Selectors of the GDT; those of level 3 have their RPL. SYSRET's base is code32u - 3, so that its three follow in order. */
export const Selector = {
  code32: 0x08,
  code: 0x10,
  data: 0x18,
  code32u: 0x23,
  datau: 0x2b,
  codeu: 0x33,
  code16: 0x38,
  tss: 0x40,
  ldt: 0x50,
  free: 0x60,
} as const;
/** High and low words from selector 8 on. */
const DESCRIPTORS: readonly (readonly [high: number, low: number])[] = [
  [0x00cf9b00, 0xffff],
  [0x00af9b00, 0xffff],
  [0x00cf9300, 0xffff],
  [0x00cffb00, 0xffff],
  [0x00cff300, 0xffff],
  [0x00affb00, 0xffff],
  [0x008f9b00, 0xffff],
  [0x00008900, (TSS << 16) | 0x1fff],
];
export const Gpr = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const;
export type GprName = keyof typeof Gpr;

const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17]);

export interface Outcome {
  /** Vector whose handler was reached, -1 = HLT in the program, -2 = triple fault. */
  readonly vector: number;
  readonly error: number | undefined;
  /** What the handler finds on its stack (64-bit frames); RIP behind the HLT without one. */
  readonly rip: number;
  readonly cs: number;
  readonly rflags: number;
  readonly rsp: number;
  readonly ss: number;
  /** RSP in the handler. */
  readonly sp: number;
}

export class SystemMachine {
  readonly vp: VirtualProcessor;
  readonly msrs: MsrFile;
  readonly ram: DataView;
  /** Labels of the programs loaded so far. */
  readonly labels: Record<string, number> = {};

  constructor(ramBytes = 4 << 20, host: Partial<ProcessorHost> = {}) {
    const machine = createBareMachine(ramBytes, {
      readMsr: (index, out) => this.msrs.read(index, out),
      writeMsr: (index, low, high) => this.msrs.write(index, low >>> 0, high >>> 0),
      ...host,
    });
    const { vp } = machine;
    this.vp = vp;
    this.msrs = new MsrFile(
      vp,
      { read: () => false, write: () => false },
      () => 0,
      () => {},
    );
    this.ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
    DESCRIPTORS.forEach(([high, low], i) => {
      this.descriptor(8 + i * 8, high, low);
    });
    vp.ram.fill(0xf4, HANDLERS, HANDLERS + 0x1000);
    for (let n = 0; n < 256; n++) this.gate(n, {});
    this.ram.setUint32(TSS + 4, RSP0, true);
    this.ram.setUint32(TSS + 0x24, IST1, true);
    this.ram.setUint32(TSS + 0x2c, IST2, true);
    this.ram.setUint16(TSS + 0x66, 0x68, true);
    vp.ram.fill(0xff, TSS + 0x68, TSS + 0x1000);
    vp.setRegister(Vp.gdtrBase, GDT);
    vp.view.setUint32(vp.base + Vp.gdtrLimit, 0x1ff, true);
    vp.setRegister(Vp.idtrBase, IDT);
    vp.view.setUint32(vp.base + Vp.idtrLimit, 0xfff, true);
    vp.setSegment(SegIndex.tr, { selector: Selector.tss, attributes: 0x8b, limit: 0x1fff, base: TSS });
    vp.setSegment(SegIndex.ldtr, { selector: 0, attributes: SegAttr.unusable, limit: 0, base: 0 });
    this.msrs.write(0xc0000081, 0, Selector.code | ((Selector.code32u - 3) << 16));
    this.level(0);
  }

  descriptor(selector: number, high: number, low: number): void {
    this.ram.setUint32(GDT + (selector & ~7), low, true);
    this.ram.setUint32(GDT + (selector & ~7) + 4, high, true);
  }
  /** A 64-bit gate. Type 0x8e = interrupt gate of level 0, 0x8f = trap gate, +0x60 = for level 3. */
  gate(vector: number, g: { type?: number; ist?: number; selector?: number; offset?: number }): void {
    const offset = g.offset ?? HANDLERS + vector * 16;
    this.ram.setUint32(IDT + vector * 16, ((g.selector ?? Selector.code) << 16) | (offset & 0xffff), true);
    this.ram.setUint32(IDT + vector * 16 + 4, (offset & 0xffff0000) | ((g.type ?? 0x8e) << 8) | (g.ist ?? 0), true);
    this.ram.setBigUint64(IDT + vector * 16 + 8, 0n, true);
  }
  /** Puts the processor into flat 64-bit code of the level, with its stack and RFLAGS = 2. */
  level(cpl: 0 | 3): void {
    const { vp } = this;
    const dpl = cpl << 5;
    vp.setSegment(SegIndex.cs, {
      selector: cpl === 0 ? Selector.code : Selector.codeu,
      attributes: 0x9b | dpl | SegAttr.long | SegAttr.granular,
      limit: 0xffffffff,
      base: 0,
    });
    const data: SegmentState = {
      ...FLAT_DATA,
      selector: cpl === 0 ? Selector.data : Selector.datau,
      attributes: FLAT_DATA.attributes | dpl,
    };
    for (const s of [SegIndex.ss, SegIndex.ds, SegIndex.es, SegIndex.fs, SegIndex.gs]) vp.setSegment(s, data);
    vp.setRegister(Vp.gpr + 32, cpl === 0 ? STACK : USER_STACK);
    vp.runtime.setRflags(2);
    vp.runtime.setCpl(cpl);
    vp.runtime.updateMode();
  }
  /** Compatibility mode, or protected mode when long mode is off. */
  code32(cpl: 0 | 3): void {
    this.level(cpl);
    this.vp.setSegment(SegIndex.cs, {
      selector: cpl === 0 ? Selector.code32 : Selector.code32u,
      attributes: 0x9b | (cpl << 5) | SegAttr.big | SegAttr.granular,
      limit: 0xffffffff,
      base: 0,
    });
    this.vp.runtime.updateMode();
  }
  /** Out of long mode: protected mode with 32-bit gates, paging off; the level is 0. */
  leaveLongMode(): void {
    const { vp, ram } = this;
    for (let n = 0; n < 256; n++) {
      ram.setUint32(IDT32 + n * 8, (Selector.code32 << 16) | (HANDLERS + n * 16), true);
      ram.setUint32(IDT32 + n * 8 + 4, 0x8e00, true);
    }
    ram.setUint32(TSS32 + 4, RSP0, true);
    ram.setUint32(TSS32 + 8, Selector.data, true);
    vp.setRegister(Vp.cr0, 0x10033);
    vp.setRegister(Vp.cr4, 0x600);
    vp.setRegister(Vp.efer, 0x800);
    vp.setRegister(Vp.idtrBase, IDT32);
    vp.view.setUint32(vp.base + Vp.idtrLimit, 0x7ff, true);
    vp.setSegment(SegIndex.tr, { selector: Selector.tss, attributes: 0x8b, limit: 0x67, base: TSS32 });
    vp.runtime.resetTlb();
    this.code32(0);
  }
  load(source: string, at = CODE, bits: 16 | 32 | 64 = 64): Assembled {
    const program = assemble(source, bits, at);
    this.vp.ram.set(program.bytes, at);
    this.vp.runtime.ramWritten(at, program.bytes.length);
    Object.assign(this.labels, program.labels);
    return program;
  }
  get(name: GprName): bigint {
    return this.vp.register64(Vp.gpr + Gpr[name] * 8);
  }
  number(name: GprName): number {
    return Number(this.get(name));
  }
  set(registers: Partial<Record<GprName, number | bigint>>): void {
    for (const [name, value] of Object.entries(registers))
      this.vp.setRegister64(Vp.gpr + Gpr[name as GprName] * 8, BigInt(value));
  }
  read64(address: number): bigint {
    return this.ram.getBigUint64(address, true);
  }
  /** Of a segment register, by its SegIndex. */
  segment(index: number): SegmentState {
    const at = this.vp.base + Vp.seg + index * SEG_BYTES;
    const v = this.vp.view;
    return {
      selector: v.getUint16(at, true),
      attributes: v.getUint16(at + 2, true),
      limit: v.getUint32(at + 4, true),
      base: Number(v.getBigUint64(at + 8, true)),
    };
  }
  /** Runs from `at` to a halt. */
  run(at: number | bigint = CODE): Outcome {
    const { vp, ram } = this;
    vp.setRegister64(Vp.rip, BigInt(at));
    let reason: number = Exit.slice;
    const end = vp.retired + 2e6;
    while (vp.retired < end && (reason === Exit.slice || reason === Exit.event)) reason = vp.run(1000);
    const sp = this.number("rsp");
    const here = Number(vp.rip);
    const plain = {
      error: undefined,
      rip: here,
      cs: this.segment(SegIndex.cs).selector,
      rflags: vp.runtime.rflags() >>> 0,
      rsp: sp,
      ss: this.segment(SegIndex.ss).selector,
      sp,
    };
    if (reason === Exit.tripleFault) return { vector: -2, ...plain };
    if (reason !== Exit.halt) throw new Error(`the program does not end: exit ${reason} at ${here.toString(16)}`);
    if (here <= HANDLERS || here > HANDLERS + 0x1000) return { vector: -1, ...plain };
    const vector = (here - 1 - HANDLERS) >> 4;
    if ((vp.view.getUint32(vp.base + Vp.efer, true) & 0x400) === 0) {
      const at = sp + (WITH_ERROR.has(vector) ? 4 : 0);
      const word = (n: number): number => ram.getUint32(at + n * 4, true);
      const outer = (word(1) & 3) !== 0;
      return {
        vector,
        error: at === sp ? undefined : ram.getUint32(sp, true),
        rip: word(0),
        cs: word(1),
        rflags: word(2),
        rsp: outer ? word(3) : at + 12,
        ss: outer ? word(4) : plain.ss,
        sp,
      };
    }
    // a frame begins at a multiple of 16: its height tells whether there is an error code
    const withError = sp % 16 === 0;
    const word = (n: number): number => Number(ram.getBigUint64(sp + (withError ? 8 : 0) + n * 8, true));
    return {
      vector,
      error: withError ? Number(ram.getBigUint64(sp, true)) : undefined,
      rip: word(0),
      cs: word(1),
      rflags: word(2),
      rsp: word(3),
      ss: word(4),
      sp,
    };
  }
  /** Assembles, loads and runs 64-bit code of a level from a fresh state. */
  execute(source: string, cpl: 0 | 3 = 0): Outcome {
    this.load(source);
    this.level(cpl);
    return this.run();
  }
}
