/**
 * A system machine with page tables to play with. The first 2 MiB are identity-mapped for the supervisor, but for one page of
 * user code; the test's own tables hang beside. RAM from TARGET on holds its own addresses, so that a read tells what it hit.
 */
import { Vp } from "../../src/cpu/layout.js";
import { type Access, modelWalk, type PagingState, type Tables, type Walk } from "./page-walker-model.js";
import { CODE, SystemMachine } from "./system-machine.js";

export const USER_CODE = 0x48000;
export const TARGET = 4 << 20;
export const END = 8 << 20;
const PML4 = 0x100000;
const PDPT = 0x101000;
const PD = 0x102000;
const PT = 0x103000;
const PAE_PDPT = 0x104000;
const PD32 = 0x105000;
const PT32 = 0x106000;
/** The tests' tables. */
export const TEST_PDPT = 0x110000;
export const TEST_PD = 0x111000;
export const TEST_PT = 0x112000;
export const SECOND_PT = 0x113000;
const DONE = "ud2";

export class PagedMachine extends SystemMachine {
  readonly tables: Tables;
  /** MMIO addresses that were read or written. */
  readonly outside: number[];
  readonly mode: PagingState["mode"];

  constructor(mode: PagingState["mode"]) {
    const outside: number[] = [];
    super(END, { mmioRead: (gpa) => void outside.push(gpa), mmioWrite: (gpa) => void outside.push(gpa) });
    this.outside = outside;
    this.mode = mode;
    const { ram } = this;
    const put = (at: number, value: number): void => ram.setBigUint64(at, BigInt(value), true);
    put(PML4, PDPT | 0x27);
    put(PDPT, PD | 0x27);
    put(PD, PT | 0x27);
    put(PAE_PDPT, PD | 1);
    ram.setUint32(PD32, PT32 | 0x27, true);
    for (let page = 0; page < 512; page++) {
      const entry = (page << 12) | 0x63 | (page === USER_CODE >> 12 ? 4 : 0);
      put(PT + page * 8, entry);
      ram.setUint32(PT32 + page * 4, entry, true);
    }
    for (let at = TARGET; at < END; at += 8) put(at, at);
    if (mode !== "4-level") this.leaveLongMode();
    this.tables = {
      read: (address, bytes) =>
        bytes === 8 ? ram.getBigUint64(Number(address), true) : BigInt(ram.getUint32(Number(address), true)),
      write: (address, bytes, value) =>
        bytes === 8
          ? ram.setBigUint64(Number(address), value, true)
          : ram.setUint32(Number(address), Number(value), true),
    };
    const { vp } = this;
    vp.setRegister(Vp.cr3, { "4-level": PML4, pae: PAE_PDPT, "32-bit": PD32 }[mode]);
    vp.setRegister(Vp.cr4, { "4-level": 0x620, pae: 0x620, "32-bit": 0x610 }[mode]);
    vp.setRegister(Vp.cr0, 0x80010033);
    for (const at of [CODE, USER_CODE]) {
      const bits = mode === "4-level" ? 64 : 32;
      const [a, b] = bits === 64 ? ["rax", "rbx"] : ["eax", "ebx"];
      this.load(`mov ${a}, [${b}]\n${DONE}`, at, bits);
      this.load(`mov [${b}], ${a}\n${DONE}`, at + 0x40, bits);
      this.load(`jmp ${b}`, at + 0x80, bits);
      this.load(`invlpg [${b}]\n${DONE}`, at + 0xc0, bits);
      this.load(`mov cr0, ${a}\n${DONE}`, at + 0x100, bits);
      this.load(`mov cr3, ${a}\n${DONE}`, at + 0x140, bits);
      this.load(`mov cr4, ${a}\n${DONE}`, at + 0x180, bits);
      this.load(`add byte [${b}], 1\n${DONE}`, at + 0x1c0, bits);
    }
    this.fresh();
  }
  /** After control registers were set by hand. */
  fresh(): void {
    this.vp.runtime.updateMode();
    this.vp.runtime.resetTlb();
  }
  /** Entry of the table that maps the test's region: of the PML4, the PDPT of PAE, or the page directory. */
  setRoot(va: bigint, entry: bigint): void {
    if (this.mode === "4-level") this.tables.write(BigInt(PML4) + ((va >> 39n) & 511n) * 8n, 8, entry);
    else if (this.mode === "pae") this.tables.write(BigInt(PAE_PDPT) + ((va >> 30n) & 3n) * 8n, 8, entry);
    else this.tables.write(BigInt(PD32) + ((va >> 22n) & 1023n) * 4n, 4, entry);
  }
  get state(): PagingState {
    const { vp, mode } = this;
    const cr4 = vp.register64(Vp.cr4);
    return {
      mode,
      cr3: vp.register64(Vp.cr3),
      wp: (vp.register64(Vp.cr0) & 0x10000n) !== 0n,
      pse: (cr4 & 0x10n) !== 0n,
      nxe: (vp.register64(Vp.efer) & 0x800n) !== 0n,
      smep: (cr4 & 0x100000n) !== 0n,
      smap: (cr4 & 0x200000n) !== 0n,
      ac: (vp.runtime.rflags() & 0x40000) !== 0,
    };
  }
  /** Runs one of the programs loaded above. */
  program(
    offset: number,
    user: boolean,
    registers: { a?: bigint; b?: bigint },
    flags = 2,
  ): ReturnType<SystemMachine["run"]> {
    if (this.mode === "4-level") this.level(user ? 3 : 0);
    else this.code32(user ? 3 : 0);
    this.vp.runtime.setRflags(flags);
    this.set({ rax: registers.a ?? 0n, rbx: registers.b ?? 0n });
    return this.run((user ? USER_CODE : CODE) + offset);
  }
  /**
   * Makes the access in the guest and by the model, and compares outcome, address and tables.
   * @returns what differs, "" = nothing
   */
  compare(va: bigint, access: Access, user: boolean, ac: boolean): string {
    const { vp, ram } = this;
    const flags = ac ? 0x40002 : 2;
    const state = { ...this.state, ac };
    const marks: [bigint, 4 | 8, bigint][] = [];
    const expected: Walk = modelWalk(
      state,
      { read: this.tables.read, write: (at, bytes, value) => void marks.push([at, bytes, value]) },
      va,
      access,
      user,
    );
    const physical = expected.fault === undefined ? Number(expected.physical) : -1;
    const before = this.#snapshot();
    const inside = physical >= 0 && physical < END;
    if (inside && access === "fetch") {
      ram.setUint16(physical, 0x0b0f, true); // ud2
      vp.runtime.ramWritten(physical, 8);
    }
    this.outside.length = 0;
    const value = 0x1122334455667788n;
    const o = this.program(access === "read" ? 0 : access === "write" ? 0x40 : 0x80, user, { a: value, b: va }, flags);
    let difference = "";
    const hex = (n: number | bigint): string => n.toString(16);
    if (expected.fault !== undefined) {
      const cr2 = vp.register64(Vp.cr2);
      if (o.vector !== 14) difference = `vector ${o.vector}, not #PF(${expected.fault})`;
      else if (o.error !== expected.fault) difference = `error ${o.error}, not ${expected.fault}`;
      else if (cr2 !== va) difference = `CR2 ${hex(cr2)}`;
    } else if (!inside && access === "fetch") {
      if (o.vector !== 13) difference = `vector ${o.vector}: code outside RAM is #GP`;
    } else if (o.vector !== 6) difference = `vector ${o.vector} error ${o.error}, not an access to ${hex(physical)}`;
    else if (!inside) {
      if (this.outside[0] !== physical) difference = `at ${this.outside[0]?.toString(16)}, not at ${hex(physical)}`;
    } else if (access === "read") {
      if (Number(this.get("rax")) !== (this.mode === "4-level" ? physical : physical >>> 0))
        difference = `read ${hex(this.get("rax"))}, not ${hex(physical)}`;
    } else if (access === "write") {
      if (ram.getUint32(physical, true) !== 0x55667788) difference = `not written at ${hex(physical)}`;
    } else if (o.rip !== Number(va)) difference = `ran at ${hex(o.rip)}`;
    if (inside) {
      ram.setBigUint64(physical, BigInt(physical), true);
      vp.runtime.ramWritten(physical, 8);
    }
    for (const [at, bytes, marked] of marks) {
      const now = this.tables.read(at, bytes);
      if (now !== marked) difference ||= `entry at ${hex(at)} is ${hex(now)}, not ${hex(marked)}`;
      before.set(at, marked);
    }
    for (const [at, was] of before) {
      const bytes = this.mode === "32-bit" ? 4 : 8;
      const now = this.tables.read(at, bytes);
      if (now !== was) difference ||= `entry at ${hex(at)} became ${hex(now)} from ${hex(was)}`;
    }
    return difference;
  }
  /** Entries of the tests' tables that are not zero. */
  #snapshot(): Map<bigint, bigint> {
    const all = new Map<bigint, bigint>();
    const bytes = this.mode === "32-bit" ? 4 : 8;
    for (const table of [PML4, PAE_PDPT, PD32, TEST_PDPT, TEST_PD, TEST_PT, SECOND_PT])
      for (let at = table; at < table + 4096; at += 8) {
        if (this.ram.getUint32(at, true) === 0 && this.ram.getUint32(at + 4, true) === 0) continue;
        for (let i = at; i < at + 8; i += bytes) all.set(BigInt(i), this.tables.read(BigInt(i), bytes));
      }
    return all;
  }
}
