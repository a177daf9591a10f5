/** A kernel module of a machine with one processor that takes it for one with more. */
import assert from "node:assert/strict";

const SYMBOL = "__num_online_cpus";
const SECTION_BYTES = 64;
const RELA = 4;
const RELA_BYTES = 24;
const SYMBOL_BYTES = 24;
/** R_X86_64_NONE: nothing is to be put there. */
const NONE = 0;

interface Section {
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  /** Of relocations: the symbols; of symbols: their names. */
  readonly link: number;
  /** Of relocations: what they are for. */
  readonly info: number;
}

/**
 * How many processors are online is a variable of the kernel's, which modules read by `mov`: that becomes one of a constant (System V ABI,
 * "Relocation"; Intel SDM, MOV).
 * @param module ELF, with its signature or without; it has none then
 */
export function withProcessors(module: Uint8Array, count: number): Uint8Array {
  const out = Buffer.from(module);
  const number = (at: number): number => Number(out.readBigUInt64LE(at));
  const table = number(0x28);
  const sections: Section[] = Array.from({ length: out.readUInt16LE(0x3c) }, (_, i) => {
    const at = table + i * SECTION_BYTES;
    const [type, link, info] = [out.readUInt32LE(at + 4), out.readUInt32LE(at + 0x28), out.readUInt32LE(at + 0x2c)];
    return { type, offset: number(at + 0x18), size: number(at + 0x20), link, info };
  });
  let places = 0;
  for (const relocations of sections.filter(({ type }) => type === RELA)) {
    const symbols = sections[relocations.link]!;
    const names = sections[symbols.link]!;
    const target = sections[relocations.info]!;
    for (let at = relocations.offset; at < relocations.offset + relocations.size; at += RELA_BYTES) {
      const symbol = symbols.offset + out.readUInt32LE(at + 12) * SYMBOL_BYTES;
      const name = names.offset + out.readUInt32LE(symbol);
      if (out.toString("latin1", name, out.indexOf(0, name)) !== SYMBOL) continue;
      const code = target.offset + number(at) - 2;
      // mov r32, [rip + disp32]
      assert.deepEqual([out[code], out[code + 1]! & 0xc7], [0x8b, 0x05], "another instruction than is expected");
      // mov r32, imm32; nop
      out[code] = 0xb8 | (out[code + 1]! >>> 3);
      out.writeUInt32LE(count, code + 1);
      out[code + 5] = 0x90;
      out.writeUInt32LE(NONE, at + 8);
      places++;
    }
  }
  assert.ok(places > 0, `the module does not ask for ${SYMBOL}`);
  const mark = out.lastIndexOf("~Module signature appended~\n");
  return mark < 0 ? out : out.subarray(0, mark);
}
