/** The network adapter's driver in a machine with one processor, made to take it for one with more. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Vm } from "../../src/vm/index.js";
import { COMMAND_MS, complaints, sh } from "../guests/hyperv-guest.js";

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

export const RELOAD = "rmmod hv_netvsc && insmod /root/hv_netvsc.ko";

/** Takes the driver's module out of the guest, changes it, and loads it in place of what is there: no adapter has an address then. */
export async function loadDriver(vm: Vm, processors: number, folder: string): Promise<void> {
  const path = await sh(vm, "modinfo -n hv_netvsc 2>/dev/null || find /lib/modules -name hv_netvsc.ko", COMMAND_MS);
  const file = join(folder, "hv_netvsc.ko");
  await vm.copyOut(path, file, { timeoutMs: COMMAND_MS });
  writeFileSync(file, withProcessors(readFileSync(file), processors));
  await vm.copyIn(file, "/root/", { timeoutMs: COMMAND_MS });
  await sh(vm, RELOAD);
}
/** As `assertQuiet`; but that the module has no signature any more is said once. */
export async function assertDriverQuiet(vm: Vm): Promise<void> {
  const log = complaints(await sh(vm, "dmesg"));
  assert.deepEqual(
    log.filter((line) => !line.includes("hv_netvsc: module verification failed")),
    [],
  );
}
