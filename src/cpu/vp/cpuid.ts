/**
 * What CPUID says (Intel SDM vol. 2, CPUID). The features are what the engine implements; `--cpu` adds and takes away.
 * GenuineIntel, because FreeBSD's TSC clock source wants Intel or AMD. The model is a server of Intel's that has no AVX
 * (Tremont): programs that choose code by the model alone (GCC's target_clones with arch=) take what is beyond AVX on any
 * model that had it, whatever the feature bits say. What Linux's lists hold against the model is declared mended in
 * IA32_ARCH_CAPABILITIES.
 */

/** Where a feature's bit is: leaf, sub-leaf, register (0..3 = EAX EBX ECX EDX), bit. */
type Place = readonly [leaf: number, subleaf: number, register: 0 | 1 | 2 | 3, bit: number];

/** Features by the name that Linux's /proc/cpuinfo has. */
export const FEATURES: Readonly<Record<string, Place>> = {
  fpu: [1, 0, 3, 0],
  de: [1, 0, 3, 2],
  pse: [1, 0, 3, 3],
  tsc: [1, 0, 3, 4],
  msr: [1, 0, 3, 5],
  pae: [1, 0, 3, 6],
  mce: [1, 0, 3, 7],
  cx8: [1, 0, 3, 8],
  apic: [1, 0, 3, 9],
  sep: [1, 0, 3, 11],
  mtrr: [1, 0, 3, 12],
  pge: [1, 0, 3, 13],
  mca: [1, 0, 3, 14],
  cmov: [1, 0, 3, 15],
  pat: [1, 0, 3, 16],
  pse36: [1, 0, 3, 17],
  clflush: [1, 0, 3, 19],
  fxsr: [1, 0, 3, 24],
  sse: [1, 0, 3, 25],
  sse2: [1, 0, 3, 26],
  mmx: [1, 0, 3, 23],
  pni: [1, 0, 2, 0],
  pclmulqdq: [1, 0, 2, 1],
  ssse3: [1, 0, 2, 9],
  sse4_1: [1, 0, 2, 19],
  sse4_2: [1, 0, 2, 20],
  aes: [1, 0, 2, 25],
  sha_ni: [7, 0, 1, 29],
  cx16: [1, 0, 2, 13],
  pcid: [1, 0, 2, 17],
  x2apic: [1, 0, 2, 21],
  movbe: [1, 0, 2, 22],
  popcnt: [1, 0, 2, 23],
  tsc_deadline_timer: [1, 0, 2, 24],
  xsave: [1, 0, 2, 26],
  rdrand: [1, 0, 2, 30],
  hypervisor: [1, 0, 2, 31],
  arat: [6, 0, 0, 2],
  fsgsbase: [7, 0, 1, 0],
  bmi1: [7, 0, 1, 3],
  smep: [7, 0, 1, 7],
  bmi2: [7, 0, 1, 8],
  erms: [7, 0, 1, 9],
  invpcid: [7, 0, 1, 10],
  rdseed: [7, 0, 1, 18],
  adx: [7, 0, 1, 19],
  clwb: [7, 0, 1, 24],
  rdpid: [7, 0, 2, 22],
  fsrm: [7, 0, 3, 4],
  spec_ctrl: [7, 0, 3, 26],
  arch_capabilities: [7, 0, 3, 29],
  syscall: [0x80000001, 0, 3, 11],
  nx: [0x80000001, 0, 3, 20],
  pdpe1gb: [0x80000001, 0, 3, 26],
  rdtscp: [0x80000001, 0, 3, 27],
  lm: [0x80000001, 0, 3, 29],
  lahf_lm: [0x80000001, 0, 2, 0],
  abm: [0x80000001, 0, 2, 5],
  constant_tsc: [0x80000007, 0, 3, 8],
};
/** Implemented, but advertised by `--cpu max` only. */
export const EXTRA_FEATURES: Readonly<Record<string, Place>> = {
  smap: [7, 0, 1, 20],
  umip: [7, 0, 2, 2],
  xsavec: [0xd, 1, 0, 1],
  xsaveopt: [0xd, 1, 0, 0],
};

/** What a user may do with `--cpu`: "default", "max", and "+name" or "-name" behind a comma. */
export function parseCpuModel(text: string): ReadonlySet<string> {
  const [first = "default", ...changes] = text.split(",");
  const set = new Set(Object.keys(FEATURES));
  if (first === "max") for (const name of Object.keys(EXTRA_FEATURES)) set.add(name);
  else if (first !== "default") changes.unshift(first);
  for (const change of changes) {
    const name = change.slice(1);
    if (!(name in FEATURES) && !(name in EXTRA_FEATURES))
      throw new RangeError(`the processor has no feature "${name}"`);
    if (change[0] === "+") set.add(name);
    else if (change[0] === "-") set.delete(name);
    else throw new RangeError(`"${change}" is neither "default", "max", "+feature" nor "-feature"`);
  }
  return set;
}

const TSC_HZ = 1_000_000_000;
const BRAND = "enlighten virtual x86-64 processor".padEnd(48, "\0");

export class Cpuid {
  readonly #leaves = new Map<number, Uint32Array>();
  readonly #features: ReadonlySet<string>;

  /** @param processors number of virtual processors (topology) */
  constructor(features: ReadonlySet<string>, processors: number) {
    this.#features = features;
    const set = (leaf: number, sub: number, a: number, b: number, c: number, d: number): void =>
      void this.#leaves.set(leaf * 64 + sub, Uint32Array.of(a, b, c, d));
    const text = (s: string, at: number): number =>
      (s.charCodeAt(at) | (s.charCodeAt(at + 1) << 8) | (s.charCodeAt(at + 2) << 16) | (s.charCodeAt(at + 3) << 24)) >>>
      0;
    const vendor = "GenuineIntel";
    set(0, 0, 0x16, text(vendor, 0), text(vendor, 8), text(vendor, 4));
    // family 6, model 0x86, stepping 5; 64-byte CLFLUSH line
    set(1, 0, 0x00080665, 0x0800 | (processors << 16), 0, 0);
    set(2, 0, 0x00feff01, 0, 0, 0xf0);
    // caches: 32 KiB L1d, 32 KiB L1i, 2 MiB L2, each of one processor
    set(4, 0, 0x121, 0x01c0003f, 63, 0);
    set(4, 1, 0x122, 0x01c0003f, 63, 0);
    set(4, 2, 0x143, 0x03c0003f, 2047, 0);
    set(6, 0, 0, 0, 0, 0);
    // bit 13: FCS and FDS are not kept
    set(7, 0, 0, 1 << 13, 0, 0);
    set(0xb, 0, 0, 1, 0x100, 0);
    set(0xb, 1, Math.ceil(Math.log2(Math.max(processors, 1))), processors, 0x201, 0);
    set(0xd, 0, 3, 576, 576, 0);
    set(0xd, 1, 0, 576, 0, 0);
    // TSC = crystal * 1 / 1; the APIC timer counts the crystal too
    set(0x15, 0, 1, 1, TSC_HZ, 0);
    set(0x16, 0, TSC_HZ / 1e6, TSC_HZ / 1e6, 100, 0);
    set(0x40000000, 0, 0, 0, 0, 0);
    set(0x80000000, 0, 0x80000008, 0, 0, 0);
    set(0x80000001, 0, 0, 0, 0, 0);
    for (let i = 0; i < 3; i++)
      set(
        0x80000002 + i,
        0,
        text(BRAND, i * 16),
        text(BRAND, i * 16 + 4),
        text(BRAND, i * 16 + 8),
        text(BRAND, i * 16 + 12),
      );
    set(0x80000006, 0, 0, 0, 0x08008040, 0);
    set(0x80000007, 0, 0, 0, 0, 0);
    // 40 physical, 48 linear address bits
    set(0x80000008, 0, 0x3028, 0, 0, 0);
    for (const name of features) {
      const [leaf, sub, register, bit] = (FEATURES[name] ?? EXTRA_FEATURES[name])!;
      const words = this.#leaves.get(leaf * 64 + sub);
      if (words !== undefined) words[register] = (words[register]! | (1 << bit)) >>> 0;
    }
  }
  has(feature: string): boolean {
    return this.#features.has(feature);
  }
  /**
   * @param osxsave CR4.OSXSAVE, which leaf 1 shows
   * @param apicId of the asking processor
   */
  read(leaf: number, subleaf: number, osxsave: boolean, apicId: number, xcr0: number, out: Uint32Array): void {
    const sub = leaf === 4 || leaf === 0xb || leaf === 0xd || leaf === 7 ? Math.min(subleaf, 63) : 0;
    // above the highest leaf, Intel answers with the highest basic one
    let words = this.#leaves.get(leaf * 64 + sub);
    if (words === undefined && leaf >= 0x17 && leaf < 0x40000000) words = this.#leaves.get(0x16 * 64);
    if (words === undefined) out.fill(0);
    else out.set(words);
    if (leaf === 1) {
      out[1] = (out[1]! & 0x00ffffff) | (apicId << 24);
      if (osxsave) out[2] = (out[2]! | (1 << 27)) >>> 0;
    } else if (leaf === 0xb) {
      out[2] = (out[2]! & ~0xff) | (subleaf & 0xff);
      out[3] = apicId;
    } else if (leaf === 0xd && subleaf === 0) out[1] = xcr0 === 0 ? 0 : 576;
  }
}
