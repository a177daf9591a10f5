/** The template of the tables: four levels of page tables, GDT, LDT, IDT, TSS, as nasm data. */
import { Place, Selector } from "./layout.js";

const hex = (n: number | bigint): string => `0x${n.toString(16)}`;
/** Accessed and dirty are set where they are not what is tested. */
const TABLE = 0x27;
const NX = 1n << 63n;

function page(entries: Readonly<Record<number, number | bigint>>, bytes = 4096): string {
  const lines: string[] = [];
  let next = 0;
  for (const [at, value] of Object.entries(entries)) {
    const index = Number(at);
    if (index > next) lines.push(`times ${index - next} dq 0`);
    lines.push(`dq ${hex(value)}`);
    next = index + 1;
  }
  if (next < bytes / 8) lines.push(`times ${bytes / 8 - next} dq 0`);
  return lines.join("\n");
}

function pageTable(): string {
  const entries: Record<number, bigint> = {};
  const map = (address: number, flags: number | bigint): void => {
    entries[(address >>> 12) & 511] = BigInt(address) | BigInt(flags);
  };
  // the driver adds US to the code's for level 3
  for (let p: number = Place.code; p < Place.codeEnd; p += 4096) map(p, 3);
  map(Place.data, 7);
  map(Place.readOnly, 5);
  map(Place.super, 3);
  map(Place.superReadOnly, 1);
  map(Place.noExec, 7n | NX);
  map(Place.reserved, 7n | (1n << 51n));
  map(Place.data2, 7);
  map(Place.data3, 7);
  map(Place.super2, 3);
  map(Place.superNoExec, 3n | NX);
  map(Place.global, 0x107);
  for (let p: number = Place.data4; p < Place.dataEnd; p += 4096) map(p, 7);
  for (const top of [Place.userStack, Place.kernelStack])
    for (const p of [(top & ~0xfff) - 4096, top & ~0xfff]) map(p, top === Place.userStack ? 7 : 3);
  return page(entries);
}

/** A descriptor out of access byte, flag nibble (G D L AVL), base and limit. */
export function descriptor(access: number, flags: number, base = 0, limit = 0xfffff): bigint {
  const b = BigInt(base);
  const l = BigInt(limit);
  return (
    (l & 0xffffn) |
    ((b & 0xffffffn) << 16n) |
    (BigInt(access) << 40n) |
    ((l >> 16n) << 48n) |
    (BigInt(flags) << 52n) |
    ((b >> 24n) << 56n)
  );
}
function callGate(access: number, selector: number, offset: number): readonly [bigint, bigint] {
  const o = BigInt(offset);
  return [(o & 0xffffn) | (BigInt(selector) << 16n) | (BigInt(access) << 40n) | ((o >> 16n) << 48n), 0n];
}

function gdt(): string {
  const entries: Record<number, bigint> = {};
  const put = (selector: number, ...values: readonly bigint[]): void => {
    values.forEach((v, i) => {
      entries[(selector >>> 3) + i] = v;
    });
  };
  const s = Selector;
  put(s.kcode32, descriptor(0x9b, 0xc));
  put(s.kcode64, descriptor(0x9b, 0xa));
  put(s.kdata, descriptor(0x93, 0xc));
  put(s.ucode32, descriptor(0xfb, 0xc));
  put(s.udata, descriptor(0xf3, 0xc));
  put(s.ucode64, descriptor(0xfb, 0xa));
  put(s.kcode16, descriptor(0x9b, 8));
  put(s.tss, descriptor(0x89, 0, Place.tss, 0x67 + 0x2001), 0n);
  put(s.ldt, descriptor(0x82, 0, Place.ldt, 0xff), 0n);
  put(s.ucode16, descriptor(0xfb, 8));
  put(s.conforming64, descriptor(0x9f, 0xa));
  put(s.conforming32, descriptor(0x9f, 0xc));
  put(s.missingData, descriptor(0x73, 0xc));
  put(s.missingCode, descriptor(0x1b, 0xa));
  put(s.executeOnly, descriptor(0xf9, 0xc));
  put(s.readOnlyData, descriptor(0xf1, 0xc));
  put(s.expandDown, descriptor(0xf7, 0xc));
  put(s.freshData, descriptor(0xf2, 0xc));
  put(s.freshCode, descriptor(0x9a, 0xa));
  put(s.bothSizes, descriptor(0x9b, 0xe));
  // to the code's second page: what is there is the case's own
  put(s.gate, ...callGate(0xec, s.kcode64, Place.code + 0x100));
  put(s.missingGate, ...callGate(0x6c, s.kcode64, Place.code + 0x100));
  put(s.kernelGate, ...callGate(0x8c, s.kcode64, Place.code + 0x100));
  put(s.userGate, ...callGate(0xec, s.ucode64, Place.code + 0x100));
  put(s.conformingGate, ...callGate(0xec, s.conforming64, Place.code + 0x100));
  put(s.tss2, descriptor(0x89, 0, Place.tss, 0x67), 0n);
  put(s.missingTss, descriptor(0x09, 0, Place.tss, 0x67), 0n);
  put(s.missingLdt, descriptor(0x02, 0, Place.ldt, 0xff), 0n);
  return page(entries);
}

function ldt(): string {
  return page({
    0: descriptor(0xf3, 0xc),
    1: descriptor(0xfb, 0xc),
    2: descriptor(0x73, 0xc),
    3: descriptor(0x93, 0xc),
    4: descriptor(0xfb, 0xa),
  });
}

/** Level 3 may ask for 3, 4 and 0x80. #DF has a stack of its own. */
function idt(): string {
  const lines: string[] = [];
  for (let n = 0; n < 256; n++) {
    const type = n === 3 || n === 4 || n === 0x80 ? 0xee : 0x8e;
    lines.push(
      `dw (stubs - $$ + ${Place.image} + ${n * 16}) & 0xffff`,
      `dw ${Selector.kcode64}`,
      `dw ${hex((type << 8) | (n === 8 ? 1 : 0))}`,
      `dw (stubs - $$ + ${Place.image} + ${n * 16}) >> 16`,
      "dq 0",
    );
  }
  return lines.join("\n");
}

/** IST3 lies in a missing page, IST4 is not canonical. Ports 0x80 to 0x87 are level 3's, the others are not. */
function tss(): string {
  return [
    "dd 0",
    `dq ${hex(Place.rsp0)}, 0, 0, 0`,
    `dq ${hex(Place.ist1)}, ${hex(Place.ist2)}, ${hex(Place.hole2 + 0x800)}, 0x800000000100, 0, 0, 0`,
    "dd 0, 0",
    "dw 0, 0x68",
    "times 16 db 0xff",
    "db 0",
    "times 0x2001 - 17 db 0xff",
    "times 0x3000 - 0x68 - 0x2001 db 0",
  ].join("\n");
}

export function tablesTemplate(): string {
  const { live } = Place;
  return [
    page({ 0: live + 0x1000 + TABLE, 511: live + 0x1000 + TABLE }),
    page({ 0: live + 0x2000 + TABLE, 1: 0xe3 }),
    page({ 0: 0xe3, 1: 0x2000e3, 2: live + 0x3000 + TABLE, 3: Place.large | 0xe7 }),
    pageTable(),
    gdt(),
    ldt(),
    idt(),
    tss(),
  ].join("\n");
}
