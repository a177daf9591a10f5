/** A processor with RAM and nothing else, in 64-bit mode with paging on: for instruction tests and kernels. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SegIndex, Vp } from "../../src/cpu/layout.js";
import {
  createEngineMemory,
  FLAT_CODE64,
  FLAT_DATA,
  type ProcessorHost,
  type RegionTier,
  VirtualProcessor,
} from "../../src/cpu/vp/virtual-processor.js";
import { stressFromEnvironment } from "../../src/host/node/stress.js";

export const silentHost: ProcessorHost = {
  portIn: () => 0xffffffff,
  portOut: () => {},
  mmioRead: (_gpa, to) => void to.fill(0xff),
  mmioWrite: () => {},
  cpuid: (_l, _s, out) => void out.fill(0),
  readMsr: () => false,
  writeMsr: () => false,
  tsc: (out) => void out.fill(0),
  random: () => 0x12345678,
  readCr8: () => 0,
  writeCr8: () => {},
  vmcall: () => false,
};

/** What the environment asks of machines with regions. */
export const stressAsked = stressFromEnvironment();
/** Whether tests that do not say it themselves run with regions. */
export const regionsAsked = (): boolean => process.env.ENLIGHTEN_REGIONS === "1" || stressAsked !== undefined;

let runtimeModule: WebAssembly.Module | undefined;
export function loadRuntime(): WebAssembly.Module {
  runtimeModule ??= new WebAssembly.Module(
    new Uint8Array(readFileSync(join(import.meta.dirname, "../../runtime.wasm"))),
  );
  return runtimeModule;
}

export interface BareMachine {
  readonly vp: VirtualProcessor;
  loadElf(elf: Uint8Array): void;
}

/**
 * @param block index of the processor's block: tests use 1, so that nothing hides behind address 0
 * @param regions whether hot code is compiled, or how
 */
export function createBareMachine(
  ramBytes: number,
  host: Partial<ProcessorHost> = {},
  block = 1,
  regions: boolean | RegionTier = regionsAsked(),
): BareMachine {
  const engine = createEngineMemory(ramBytes, 2, true);
  const vp = new VirtualProcessor(
    engine,
    block,
    { ...silentHost, ...host },
    { runtime: loadRuntime(), interpreter: undefined },
    false,
    regions === true ? (stressAsked === undefined ? {} : { stress: stressAsked }) : regions || undefined,
  );
  const ram = new DataView(vp.ram.buffer, vp.ram.byteOffset, vp.ram.byteLength);
  // identity map of the first 1 GiB in 4 KiB pages for RAM: tables from 0x10000 on
  const pages = ramBytes >>> 12;
  const tables = Math.ceil(pages / 512);
  ram.setUint32(0x1000, 0x2007, true);
  ram.setUint32(0x2000, 0x3007, true);
  for (let t = 0; t < tables; t++) ram.setUint32(0x3000 + t * 8, (0x10000 + t * 4096) | 7, true);
  for (let p = 0; p < pages; p++) ram.setUint32(0x10000 + p * 8, (p << 12) | 0x67, true);
  setLongMode(vp, 0x1000);
  return {
    vp,
    loadElf(elf) {
      const v = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
      const at = Number(v.getBigUint64(32, true));
      for (let i = 0; i < v.getUint16(56, true); i++) {
        const h = at + i * v.getUint16(54, true);
        if (v.getUint32(h, true) !== 1) continue;
        const offset = Number(v.getBigUint64(h + 8, true));
        const to = Number(v.getBigUint64(h + 24, true));
        vp.ram.set(elf.subarray(offset, offset + Number(v.getBigUint64(h + 32, true))), to);
      }
    },
  };
}

export function setLongMode(vp: VirtualProcessor, cr3: number): void {
  vp.setRegister(Vp.cr3, cr3);
  vp.setRegister(Vp.cr4, 0x6a0);
  vp.setRegister(Vp.efer, 0xd01);
  vp.setRegister(Vp.cr0, 0x80010033);
  vp.setSegment(SegIndex.cs, FLAT_CODE64);
  for (const s of [SegIndex.es, SegIndex.ss, SegIndex.ds, SegIndex.fs, SegIndex.gs]) vp.setSegment(s, FLAT_DATA);
  vp.runtime.setCpl(0);
  vp.runtime.updateMode();
  vp.runtime.resetTlb();
}
