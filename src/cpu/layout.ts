/**
 * The one map of the engine's WebAssembly memory: where everything is, for TypeScript, for generated code, and (through
 * scripts/generate-layout.ts) for the AssemblyScript runtime.
 *
 * Low to high: null guard, runtime statics, code-line masks (one u64 a guest page), the blocks of the virtual processors,
 * guest RAM. A block is always reached by its base, never by address 0. Untouched pages cost nothing.
 */

/** Offsets inside a virtual processor's block, in bytes. */
export const Vp = {
  /** RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15: 16 x u64. */
  gpr: 0x000,
  /** Always 0: stands for an absent base or index register. */
  zero: 0x080,
  /** Linear address of the page that runs: the base of RIP-relative operands. */
  ripPage: 0x088,
  /** Effective addresses that an address micro-operation made. */
  tempAddress: 0x090,
  tempAddress2: 0x098,
  /** Bases of ES, CS, SS, DS, FS, GS: 6 x u64. */
  segBase: 0x0a0,
  /** Lazy flags: operands and result, each sign-extended to 64 bits, and their kind (FlagKind). */
  flagA: 0x0d0,
  flagB: 0x0d8,
  flagR: 0x0e0,
  flagKind: 0x0e8,
  /** RFLAGS without CF, PF, AF, ZF, SF, OF. */
  rflags: 0x0ec,
  /** RIP; true only outside a running block. */
  rip: 0x0f0,
  xmm: 0x100,
  /** Upper halves of YMM0..15: laid out, not used yet. */
  ymmHigh: 0x200,
  /** x87 registers R0..R7 by physical number: u64 significand, u16 sign and exponent, 6 bytes of padding. */
  x87: 0x300,
  fcw: 0x380,
  fsw: 0x382,
  /** Tag word in the abridged form of FXSAVE: bit set = not empty, by physical register. */
  ftw: 0x384,
  fop: 0x386,
  fip: 0x388,
  fdp: 0x390,
  /** MXCSR in the low 16 bits; MXCSR_STRICT above them. */
  mxcsr: 0x398,
  /** 16 bytes: what the slow path of an SSE operation gives. */
  vectorResult: 0x3a0,
  /** Segment registers ES, CS, SS, DS, FS, GS, LDTR, TR: selector u16, attributes u16 (SegAttr), limit u32, base u64. */
  seg: 0x400,
  gdtrBase: 0x480,
  gdtrLimit: 0x488,
  idtrBase: 0x490,
  idtrLimit: 0x498,
  cr0: 0x500,
  cr2: 0x508,
  cr3: 0x510,
  cr4: 0x518,
  efer: 0x520,
  xcr0: 0x528,
  /** DR0..DR7. */
  dr: 0x530,
  star: 0x580,
  lstar: 0x588,
  cstar: 0x590,
  sfmask: 0x598,
  kernelGsBase: 0x5a0,
  sysenterCs: 0x5a8,
  sysenterEsp: 0x5b0,
  sysenterEip: 0x5b8,
  tscAux: 0x5c0,
  pat: 0x5c8,
  /** Features that change what an instruction does: CpuFeature bits, set from CPUID when the processor is made. */
  features: 0x5d8,
  cpl: 0x600,
  /** Bits of ModeKey: what decoding depends on. */
  mode: 0x604,
  /** First byte of the TLB pair (read, write) of the current privilege level: an address in the memory. */
  tlb: 0x608,
  /** What a jump-cache entry must have beside its address: code size, privilege level, generation (u32). */
  jumpTag: 0x610,
  /** Of the entries for the supervisor's levels; userGeneration: for level 3. */
  jumpGeneration: 0x618,
  /** Atomic word: something wants the processor's attention (Pending bits). */
  pending: 0x620,
  /** Interrupts are held off for one instruction: 1 by STI, 2 by MOV SS or POP SS, which hold the single-step trap off too. */
  shadow: 0x624,
  /** Record that was running at a fault or an exit. */
  pc: 0x628,
  exitReason: 0x62c,
  /** The time-stamp counter that the host was asked for: u64. */
  tscNow: 0x630,
  /** Vector of the exception to be delivered, -1 = none. */
  faultVector: 0x638,
  faultError: 0x63c,
  faultHasError: 0x640,
  faultAddress: 0x648,
  /** Set while an exception is being delivered (double-fault rules): vector + 1. */
  delivering: 0x650,
  /** NMI blocked until IRET. */
  nmiBlocked: 0x654,
  /** Instructions retired: u64. */
  retired: 0x658,
  /** Loop-local budget is spilled here at exits. */
  budget: 0x660,
  /** A read-modify-write in the bounce buffer waits for its completion: size in bytes, address. */
  rmwSize: 0x668,
  rmwAddress: 0x670,
  /** RAM offset of the part of a read-modify-write that lies in the next page. */
  rmwSecond: 0x698,
  /** u16: handler number of the micro-operation that stands in records that are no more: look RIP up again. */
  poisoned: 0x6a0,
  /** u16: handler number of the one that does the same and looks at the pending word. */
  attend: 0x6a2,
  /** 1: a single-step #DB is due when the running instruction is over (partition.ts); a delivered event takes it back. */
  debugTrap: 0x6a8,
  /** Data and I/O breakpoints that the running instruction has touched: bits 0..3 as in DR6. */
  debugHits: 0x6ac,
  /** 1: the next instruction is not looked at for breakpoints (RFLAGS.RF, or MOV SS before it). */
  resume: 0x6b0,
  /** Regions that have died by stores to their code, counted. */
  regionDeaths: 0x6b8,
  userGeneration: 0x6bc,
  /** The highest of them that has been given out. */
  lastGeneration: 0x614,
  /**
   * What the execute TLB and the jump cache may hold: 1 = supervisor code in pages that are not global, 2 = code in 1 GiB pages; one bit
   * for each 2 MiB with code in large pages, by address modulo 1 GiB; one for each 4 KiB page with code, by address modulo 8 MiB, of
   * level 3 and then of the others.
   */
  codeKinds: 0x688,
  codeRegions: 0x6c0,
  codePages: 0xe00,
  /** DR0..DR3 that DR7 arms for data (bits 0..3): their pages stay out of the TLB. */
  watch: 0x6b4,
  /** Next free byte of the record arena; end of the arena. */
  arenaNext: 0x678,
  tlbLogLength: 0x680,
  /** Where pieces of 2 MiB or 1 GiB pages have come into the TLB since the last whole flush: a bit for each 1 GiB, by a hash. */
  tlbLarge: 0x684,
  /** Generation of the record arena: grows at each whole flush. */
  arenaGeneration: 0x68c,
  /** 1: every block has one instruction (single step, lockstep). */
  singleStep: 0x690,
  /** Header of the second-page entry of the block just built, 0 = none. */
  blockAlias: 0x694,
  /** Scratch of string instructions and helpers. */
  bounce: 0x700,
  bounce2: 0x780,
  bounceEnd: 0x800,
  /** Image of FXSAVE and XSAVE while it is made. */
  scratch: 0xa00,
  /** Counters (Stat), u64 each. */
  stats: 0x800,
  /** Local APIC register page, in the layout of the xAPIC page. */
  apic: 0x1000,
  /** Interrupt requests from any thread. */
  apicRequests: 0x2000,
  /** SynIC and synthetic timers, with what other threads ask of them (hypervisor/shared-areas.ts). */
  synic: 0x3000,
  /** Executions by form, when the interpreter was generated to count them. */
  formCounts: 0x4000,
  /** Messages that the guest posted on this processor and nobody has taken yet (hypervisor/shared-areas.ts). */
  posted: 0xa000,
  /** Of the whole partition, in the first processor's block (hypervisor/shared-areas.ts). */
  partition: 0xe000,
  tlbSupervisor: 0x10000,
  tlbUser: 0x30000,
  /** Pages that others with their place took out of the TLB: for each of its four parts VICTIMS entries as there, by address. */
  tlbVictims: 0x50000,
  execTlb: 0x60000,
  tlbLog: 0x62000,
  blockHash: 0x70000,
  /** A TLB in which nothing is ever found. */
  tlbNone: 0xb0000,
  jumpCache: 0xd0000,
  /** u32 for each entry of the jump cache: Head.region of its block where it is known, 0 = look there. */
  jumpGates: 0x110000,
  /** Address spaces that may come back (TlbBank), by process-context identifier. */
  tlbBanks: 0x120000,
  arena: 0x130000,
} as const;

/**
 * Beside MXCSR: no SSE arithmetic takes the host's short way, so that all flags are exact, DE too. Set when the machine is made.
 */
export const MXCSR_STRICT = 0x10000;
/** What lets SSE arithmetic go the host's way: control bits as after reset, not strict, and the inexact flag (PE) set already. */
export const MXCSR_ORDINARY = { mask: MXCSR_STRICT | 0xffe0, value: 0x1fa0, inexact: 0x20 } as const;

/** Bits of Vp.features. */
export const CpuFeature = { smap: 1, pcid: 2 } as const;

export const TLB_ENTRIES = 4096;
/** A TLB entry: u64 tag, u32 addend, u32 flags (TlbFlag). Read entries first, the write entries of the same set follow. */
export const TLB_WRITE = TLB_ENTRIES * 16;
/** Entries of each part of Vp.tlbVictims. */
export const VICTIMS = 32;
export const TLB_LOG_ENTRIES = 0x3800;
export const JUMP_CACHE_ENTRIES = 16384;
export const EXEC_TLB_ENTRIES = 512;
export const BLOCK_HASH_ENTRIES = 0x10000;
export const ARENA_BYTES = 32 << 20;
/** Room a block may need: checked before one is built. */
export const MAX_BLOCK = 8192;
export const VP_BLOCK_BYTES = Vp.arena + ARENA_BYTES;

export const TlbFlag = { global: 1, large: 2, user: 4 } as const;
/**
 * An address space that is not the current one: its identifier + 1 (0 = none), how many entries of the TLB are kept, the generations
 * that its code was known by, its half of Vp.codePages, the entries: tag, addend and flags as in the TLB, address of the slot.
 */
export const TlbBank = {
  id: 0,
  count: 4,
  userGeneration: 8,
  jumpGeneration: 12,
  codePages: 0x100,
  entries: 0x200,
  bytes: 0x2000,
} as const;
export const TLB_BANKS = 8;
/** Of an entry in a bank, and how many there is room for. */
export const BANK_ENTRY_BYTES = 24;
export const BANK_ENTRIES = 320;

/** Counters at Vp.stats, by index. */
export const Stat = {
  tlbMisses: 0,
  walks: 1,
  jumpMisses: 2,
  decodedBlocks: 3,
  invalidations: 5,
  mmio: 6,
  exceptions: 8,
  interrupts: 9,
  tlbFlushes: 10,
  arenaFlushes: 11,
  storesToCode: 13,
  /** Times that a region was entered, instructions that ran in one, instructions that one left to the interpreter. */
  regionEntries: 14,
  regionInstructions: 15,
  regionSingles: 16,
  /** Times that the pages of a region were looked at anew. */
  regionChecks: 17,
} as const;

export const Pending = { interrupt: 1, nmi: 2, stop: 4, other: 8 } as const;

/** Why the interpreter came back. */
export const Exit = { slice: 0, event: 1, halt: 2, tripleFault: 3, hostCall: 4, shutdown: 5 } as const;

/**
 * What a region tells the loop: go on at RIP, deliver the recorded fault, run the one instruction at RIP, go on at RIP after a look at
 * the pending word, come out (Vp.exitReason).
 */
export const RegionStatus = { next: 0, fault: 1, single: 2, attend: 3, exit: 4 } as const;
/**
 * What a region of several pages keeps in the memory: the jump tag and the base that its pages were last found right with, and for each
 * page but the first its distance (i32, bytes) and its physical address (u32).
 */
export const RegionPages = { tag: 0, count: 4, base: 8, pages: 16 } as const;
/**
 * What a region keeps for a way out: where it led the last time (RIP, jump tag) and the gate that stood there, as Head.region has it.
 * Gates close only with the jump tag's change (code.ts, closeGates).
 */
export const ExitSlot = { rip: 0, tag: 8, gate: 12, bytes: 16 } as const;
/** What a cold operation tells the loop. */
export const Status = { next: 0, fault: 1, redispatch: 2, exit: 3 } as const;

/**
 * How the lazy flags are meant. ZF is always `r == 0`. A is the first operand, B the second, R the result.
 * Operands are sign-extended, so no formula needs the width: CF of SUB is `a <u b` at any of them.
 */
export const FlagKind = {
  /** a - b = r, and every logical operation as r - 0. */
  sub: 0,
  /** a - b - carry. */
  sbb: 1,
  /** a + b or a + b + carry. */
  add: 2,
  /** CF is in bit 0 of b. */
  inc: 3,
  dec: 4,
  /** CF, AF, OF in b at their places in RFLAGS; SF and PF from r. */
  explicit: 5,
  /** All but ZF in b at their places. */
  packed: 6,
} as const;

/** Fields of a decoded record (32 bytes), by offset. */
export const Rec = {
  handler: 0, // u16
  count: 2, // u8: instructions of the block up to and with this one
  scale: 3, // u8
  dst: 4, // u16: offset in the block of a register
  src: 6,
  base: 8,
  index: 10,
  disp: 12, // i32
  imm: 16, // i64; of a jump: target relative to ripPage
  pageOffset: 24, // u16: of the instruction in its page
  length: 26, // u8
  src2: 27, // u8: index of a third register operand, or a selector of the operation
  link: 28, // u32: direct jump: record of the target, 0 = not known; cold operation: its number
} as const;
/** In Rec.src2: the record pushes or pops beside its memory operand. */
export const BESIDE_STACK = 0xff;
export const REC_BYTES = 32;
/**
 * A block's header record. `region`: what the gate enters instead of the block (table index << 8 | entry); start, end: physical
 * addresses of its first byte and behind its last; `next`: the next block of the page; `records` (u16): how many follow; `handler`
 * (u16): that of its first record, while a gate stands there, or Head.isRegion; `owner`: the header that dies with these bytes.
 */
export const Head = {
  region: 0,
  start: 4,
  end: 8,
  next: 12,
  records: 16,
  handler: 18,
  hashNext: 20,
  mode: 24,
  owner: 28,
} as const;
/** Head.handler of a region's own header, behind which the headers of its entries' blocks are: u32 count, u32 each. */
export const REGION_HEAD = 0xffff;

/** What decoding depends on besides the bytes. */
export const ModeKey = {
  /** Bits 0..1: 0 = 16-bit, 1 = 32-bit, 2 = 64-bit code. */
  code16: 0,
  code32: 1,
  code64: 2,
  codeMask: 3,
  /** SS.B: the stack pointer is ESP. Meaningful outside 64-bit code. */
  stack32: 4,
  /** Segment bases of ES, CS, SS, DS are 0 and limits are 4 GiB. */
  flat: 8,
  /** CR0.TS: instructions of the x87 and SSE state are #NM. */
  noFpu: 16,
  /** CR4.OSFXSR is clear: SSE instructions are #UD. */
  noSse: 32,
  single: 64,
  real: 128,
  /** CR0.EM: x87 instructions are #NM, MMX and SSE instructions #UD. */
  emulate: 256,
  /** DR7 arms a breakpoint: each instruction is preceded by a look at it. */
  debug: 512,
  /** CPL is 3. */
  user: 1024,
  /** Alignment is checked (CR0.AM, RFLAGS.AC, CPL 3): no access goes by the TLB. */
  aligned: 2048,
} as const;

export const SegIndex = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, ldtr: 6, tr: 7 } as const;
export const SEG_BYTES = 16;
/** attributes: bits 0..7 = access byte (type, S, DPL, P), bits 12..15 = AVL, L, D/B, G; bit 8 = unusable (null). */
export const SegAttr = { unusable: 0x100, avl: 0x1000, long: 0x2000, big: 0x4000, granular: 0x8000 } as const;

/** Addresses of one memory's areas. */
export interface MemoryLayout {
  readonly pages: number;
  readonly lineMasks: number;
  /** Per virtual processor: base of its block and of its table of blocks by guest page (u32 a page). */
  readonly vps: readonly { readonly base: number; readonly pageBlocks: number }[];
  readonly ram: number;
  readonly ramBytes: number;
}

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Base of the first processor's block: the same in every machine, so that its interpreter can be made at build time. */
export const FIRST_BLOCK = 0x40000;

/** @param ramBytes guest RAM, a multiple of 4096; @param vps number of blocks (at least two are laid out) */
export function layoutMemory(ramBytes: number, vps: number): MemoryLayout {
  const guestPages = ramBytes >>> 12;
  // below: null guard (64 KiB), the runtime's statics; the blocks come first, so that their addresses depend on nothing
  let at = FIRST_BLOCK;
  const bases: number[] = [];
  for (let i = 0; i < Math.max(2, vps); i++) {
    bases.push(at);
    at = align(at + VP_BLOCK_BYTES, 0x10000);
  }
  const blocks = bases.map((base) => {
    const pageBlocks = at;
    at = align(at + guestPages * 4, 0x1000);
    return { base, pageBlocks };
  });
  const lineMasks = at;
  at = align(at + guestPages * 8, 0x10000);
  const end = align(at + ramBytes + 0x1000, 0x10000);
  if (end > 0xffff0000) throw new RangeError(`guest memory of ${ramBytes} bytes does not fit`);
  return { pages: end / 0x10000, lineMasks, vps: blocks, ram: at, ramBytes };
}
