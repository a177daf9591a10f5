/** #PF and the pages' accessed and dirty bits, by page, access, level and mode. */
import { atLevels, type Case, Flag } from "./case.js";

const PAGES = [
  "DATA",
  "HOLE",
  "RDONLY",
  "SUPER",
  "SUPERRO",
  "NOEXEC",
  "RESERVED",
  "LARGE",
  "LARGEHOLE",
  "SUPERNX",
] as const;
const INT80 = "0x909080cd";
const ACCESSES = {
  read: (p: string) => `mov eax, [abs ${p} + 16]`,
  write: (p: string) => `mov [abs ${p} + 16], eax`,
  modify: (p: string) => `inc byte [abs ${p} + 16]`,
  execute: (p: string) => `mov eax, ${p}\ncall rax`,
} as const;
type Access = keyof typeof ACCESSES;
/** QEMU reads before it writes, which the manual leaves open: W/R of the error code, and bits that are set before the fault. */
const READ_THEN_WRITE = { open: ["e", "c2", "t"] };
const one = (page: string, access: Access, level: "k64" | "u64", mode = "", setup = "", rflags = 2): Case => ({
  name: `page.${mode}${page}.${access}.${level}`,
  level,
  code: `${ACCESSES[access](page)}\nstop`,
  setup: `data ${page}, ${INT80}\n${setup}`,
  rflags,
  ...(access === "modify" ? READ_THEN_WRITE : {}),
});
const plain: readonly Case[] = PAGES.flatMap((page) =>
  (["read", "write", "modify", "execute"] as const).flatMap((access) =>
    (["k64", "u64"] as const).map((level) => one(page, access, level)),
  ),
);
const modes: readonly Case[] = [
  ...["RDONLY", "SUPERRO", "HOLE", "RESERVED"].flatMap((page) =>
    (["write", "modify"] as const).flatMap((access) =>
      (["k64", "u64"] as const).map((level) => one(page, access, level, "wp-off.", "uncr cr0, 0x10000")),
    ),
  ),
  ...["DATA", "RDONLY", "SUPER", "LARGE", "HOLE"].flatMap((page) =>
    (["read", "write", "execute"] as const).flatMap((access) => [
      one(page, access, "k64", "smap.", "cr cr4, 0x200000"),
      one(page, access, "k64", "smap-ac.", "cr cr4, 0x200000", 2 | Flag.AC),
      one(page, access, "u64", "smap.", "cr cr4, 0x200000"),
      one(page, access, "k64", "smep.", "cr cr4, 0x100000"),
    ]),
  ),
  one("RDONLY", "write", "k64", "smap-wp-off.", "cr cr4, 0x200000\nuncr cr0, 0x10000"),
  one("RDONLY", "write", "k64", "smap-ac-wp-off.", "cr cr4, 0x200000\nuncr cr0, 0x10000", 2 | Flag.AC),
  ...(["read", "write", "execute"] as const).flatMap((access) => [
    one("NOEXEC", access, "u64", "nxe-off.", "msr 0xc0000080, 0x501"),
    one("HOLE", access, "u64", "nxe-off.", "msr 0xc0000080, 0x501"),
    one("DATA", access, "u64", "nxe-off.", "msr 0xc0000080, 0x501"),
  ]),
  one("HOLE", "execute", "u64", "nxe-off-smep.", "msr 0xc0000080, 0x501\ncr cr4, 0x100000"),
];

/** Rights and faults in the upper levels. */
const UPPER: Readonly<Record<string, string>> = {
  "pml4-missing": "mov qword [abs PML4 + 8 * 511], 0",
  "pml4-ps": "or qword [abs PML4 + 8 * 511], 0x80",
  "pml4-user-off": "and qword [abs PML4 + 8 * 511], ~4",
  "pml4-read-only": "and qword [abs PML4 + 8 * 511], ~2",
  "pml4-nx": "mov rax, 0x8000000000000000\nor [abs PML4 + 8 * 511], rax",
  "pml4-reserved": "mov rax, 0x8000000000000\nor [abs PML4 + 8 * 511], rax",
  "pml4-fresh": "and qword [abs PML4 + 8 * 511], ~0x20",
  "pdpt-missing": "mov qword [abs PDPT + 8 * 511], 0\nmov rax, [abs PML4]\nmov [abs PML4 + 8], rax",
  "pd-bit-40": "mov rax, 0x10000000000\nor [abs PD + 8 * 3], rax",
  "pd-large-reserved": "or qword [abs PD + 8 * 3], 0x2000",
  "pd-large-pat": "or qword [abs PD + 8 * 3], 0x1000",
  "pd-large-read-only": "and qword [abs PD + 8 * 3], ~2",
  "pd-large-super": "and qword [abs PD + 8 * 3], ~4",
  "pd-large-fresh": "and qword [abs PD + 8 * 3], ~0x60",
  "pd-large-nx": "mov rax, 0x8000000000000000\nor [abs PD + 8 * 3], rax",
  "pd-ignored-bits": "mov rax, 0x7ff0000000000e00\nor [abs PD + 8 * 3], rax",
};
const upper: readonly Case[] = Object.entries(UPPER).flatMap(([name, setup]) =>
  (["read", "write", "execute"] as const).flatMap((access) =>
    (["u64"] as const).map(
      (level): Case => ({
        name: `upper.${name}.${access}`,
        level,
        code: `mov rbx, UPPER + LARGE\n${{ read: "mov eax, [rbx + 8]", write: "mov [rbx + 8], eax", execute: "call rbx" }[access]}\nstop`,
        setup: `data LARGE, ${INT80}\n${setup}`,
      }),
    ),
  ),
);
const huge: readonly Case[] = [
  { name: "huge.fresh", level: "k64", code: "mov eax, [abs ALIAS + DATA]\nmov [abs ALIAS + DATA], eax\nstop" },
  {
    name: "huge.reserved",
    level: "k64",
    code: "mov rax, [abs PDPT + 8]\nmov ebx, 0x2000\nor rax, rbx\nmov [abs PDPT + 16], rax\nmov rbx, 0x80000000\nmov eax, [rbx]\nstop",
  },
  {
    name: "huge.user-off",
    level: "u64",
    code: "mov rbx, 0x80410000\nmov eax, [rbx]\nstop",
    setup: "mov qword [abs PDPT + 16], 0x83",
    open: ["t"],
  },
  {
    name: "huge.user",
    level: "u64",
    code: "mov rbx, 0x80410000\nmov eax, [rbx]\nmov [rbx + 8], eax\nstop",
    setup: "mov qword [abs PDPT + 16], 0x87",
  },
];

/** Accesses over the border of two pages; what lies before the border, or behind, is missing or not allowed. */
const BORDERS = {
  "data-hole": "HOLE",
  "hole-read-only": "RDONLY",
  "read-only-super": "SUPER",
  "super-super": "SUPERRO",
  "data-data": "DATA3",
  "no-exec-reserved": "RESERVED",
  "hole-super": "SUPER2",
} as const;
const CROSSING: Readonly<Record<string, (border: string) => string>> = {
  read8: (b) => `mov rax, [abs ${b} - 3]`,
  write8: (b) => `mov rax, 0x1234567890abcdef\nmov [abs ${b} - 3], rax`,
  write2: (b) => `mov [abs ${b} - 1], ax`,
  modify8: (b) => `add [abs ${b} - 5], rax`,
  xchg4: (b) => `xchg [abs ${b} - 2], eax`,
  read16: (b) => `movups xmm0, [abs ${b} - 9]`,
  write16: (b) => `movups [abs ${b} - 9], xmm0`,
  fxsave: (b) => `fxsave [abs ${b} - 32]\nmov edi, ${b} - 32\nxor eax, eax\nmov ecx, 64\nrep stosq`,
  bts: (b) => `mov eax, 40\nbts [abs ${b} - 8], rax`,
  call: (b) => `lea rsp, [abs ${b} + 4]\ncall .next\n.next:`,
  pop: (b) => `lea rsp, [abs ${b} - 4]\npop rax`,
  enter: (b) => `lea rsp, [abs ${b} + 4]\nenter 16, 0`,
  cmpxchg8b: (b) => `cmpxchg8b [abs ${b} - 4]`,
  movsq: (b) => `mov esi, ${b} - 4\nmov edi, DATA4\nmovsq`,
  stosq: (b) => `mov edi, ${b} - 4\nstosq`,
  sgdt: (b) => `sgdt [abs ${b} - 4]`,
  fld: (b) => `fld tword [abs ${b} - 4]`,
  fstp: (b) => `fld1\nfstp tword [abs ${b} - 4]`,
  fnstenv: (b) => `fnstenv [abs ${b} - 6]`,
};
/** What may be seen of an instruction that faults behind the border: the manual does not say that nothing was written before it. */
const PARTIAL: Readonly<Record<string, readonly string[]>> = {
  modify8: READ_THEN_WRITE.open,
  xchg4: READ_THEN_WRITE.open,
  bts: READ_THEN_WRITE.open,
  cmpxchg8b: READ_THEN_WRITE.open,
  write16: ["m"],
  sgdt: ["m"],
  fnstenv: ["m"],
  fxsave: ["c2", "e", "t", "m"],
};
const crossing: readonly Case[] = Object.entries(CROSSING).flatMap(([name, code]) =>
  Object.entries(BORDERS).map(
    ([border, at]): Case => ({
      name: `crossing.${name}.${border}`,
      level: "u64",
      code: `${code(at)}\nmov esp, USTACK\nstop`,
      undefinedFlags: name === "bts" ? 0x8d4 : 0,
      ...(PARTIAL[name] === undefined ? {} : { open: PARTIAL[name] }),
    }),
  ),
);
const kernelCrossing: readonly Case[] = ["read8", "write8", "modify8", "write16"].flatMap((name) =>
  Object.entries(BORDERS).map(
    ([border, at]): Case => ({
      name: `crossing.${name}.${border}.k64`,
      level: "k64",
      code: `${CROSSING[name]!(at)}\nstop`,
      open: PARTIAL[name] ?? [],
    }),
  ),
);

/** Code over the border, and the end of the code's pages. */
const fetches: readonly Case[] = [
  { name: "fetch.end", level: "u64", code: "jmp .end\ntimes 0x3fff - ($ - $$) nop\n.end: nop" },
  { name: "fetch.half", level: "u64", code: "jmp .end\ntimes 0x3ffd - ($ - $$) nop\n.end: db 0xb8, 0x78, 0x56" },
  { name: "fetch.ud-before-hole", level: "u64", code: "jmp .end\ntimes 0x3ffe - ($ - $$) nop\n.end: ud2" },
  { name: "fetch.prefixes", level: "u64", code: "jmp .end\ntimes 0x3ffd - ($ - $$) nop\n.end: db 0x66, 0x66, 0x66" },
  { name: "fetch.modrm-ud", level: "u64", code: "jmp .end\ntimes 0x3ffd - ($ - $$) nop\n.end: db 0x0f, 0xc7, 0xc0" },
  { name: "fetch.over", level: "u64", code: "jmp .end\ntimes 0xffd - ($ - $$) nop\n.end: mov eax, 0x12345678\nstop" },
  {
    name: "fetch.over-super",
    level: "u64",
    code: "jmp .end\ntimes 0xffd - ($ - $$) nop\n.end: mov eax, 0x12345678\nstop",
    setup: "and qword [abs PT + 8], ~4",
  },
  {
    name: "fetch.over-nx",
    level: "u64",
    code: "jmp .end\ntimes 0xffd - ($ - $$) nop\n.end: mov eax, 0x12345678\nstop",
    setup: "mov rax, 0x8000000000000000\nor [abs PT + 8], rax",
  },
  {
    name: "fetch.over-smep",
    level: "k64",
    code: "jmp .end\ntimes 0xffd - ($ - $$) nop\n.end: mov eax, 0x12345678\nstop",
    setup: "or qword [abs PT + 8], 4\ncr cr4, 0x100000",
  },
  {
    name: "fetch.jump-to-border",
    level: "u64",
    code: "jmp .end + 3\ntimes 0xffd - ($ - $$) nop\n.end: db 0, 0, 0\nstop",
  },
  { name: "fetch.15-bytes", level: "u64", code: "times 10 db 0x66\ndb 0x2e, 0x2e\nmov cx, ax\nstop" },
  { name: "fetch.16-bytes", level: "u64", code: "times 14 db 0x66\nmov cx, ax\nstop" },
  { name: "fetch.16-bytes-jump", level: "u64", code: "times 14 db 0x2e\njmp short .a\n.a: stop" },
  { name: "fetch.16-bytes-hole", level: "u64", code: "jmp .end\ntimes 0x3ff2 - ($ - $$) nop\n.end: times 14 db 0x66" },
  { name: "fetch.15-prefixes", level: "u64", code: "times 15 db 0x66\nnop\nstop" },
];

/** Entries changed under the processor's feet, then made known by what has to make them known. */
const CHANGE =
  "mov eax, [abs GLOBALPAGE]\nmov ebx, [abs DATA]\nmov rcx, [abs PT + 0x80]\nmov rdx, DATA2 | 0x107\nmov [abs PT + 0xe0], rdx\nmov rdx, DATA3 | 7\nmov [abs PT + 0x80], rdx\n";
const REREAD = "mov eax, [abs DATA]\n";
const INVALIDATE: Readonly<Record<string, string>> = {
  invlpg: "invlpg [abs GLOBALPAGE]\ninvlpg [abs DATA + 0x123]\n",
  pge: "mov rax, cr4\nxor al, 0x80\nmov cr4, rax\nxor al, 0x80\nmov cr4, rax\n",
  "paging-bits": "mov rax, cr4\nxor eax, 0x100000\nmov cr4, rax\nmov rax, cr3\nmov cr3, rax\ninvlpg [abs GLOBALPAGE]\n",
};
const invalidations: readonly Case[] = [
  ...Object.entries(INVALIDATE).map(
    ([name, code]): Case => ({
      name: `invalidate.${name}`,
      level: "k64",
      code: `${CHANGE}${code}mov r8d, [abs GLOBALPAGE]\nmov r9d, [abs DATA]\nstop`,
    }),
  ),
  { name: "invalidate.cr3", level: "k64", code: `${CHANGE}mov rax, cr3\nmov cr3, rax\n${REREAD}stop` },
  {
    name: "invalidate.by-fault",
    level: "k64",
    code: "mov eax, [abs DATA]\nand qword [abs PT + 0x80], ~2\ninvlpg [abs DATA]\nmov [abs DATA], eax\nstop",
  },
  {
    name: "invalidate.more-rights",
    level: "k64",
    code: "mov qword [abs PT + 0x88], DATA2 | 7\nmov eax, [abs HOLE]\nmov [abs HOLE + 8], eax\nstop",
  },
  {
    name: "invalidate.dirty",
    level: "k64",
    code: "mov [abs DATA], eax\nmov rax, [abs PT + 0x80]\nand qword [abs PT + 0x80], ~0x60\ninvlpg [abs DATA]\nmov ebx, [abs DATA]\nmov rcx, [abs PT + 0x80]\nmov [abs DATA], eax\nstop",
  },
  {
    name: "invalidate.large",
    level: "k64",
    code: "mov eax, [abs LARGE + 0x12345]\nmov qword [abs PD + 24], 0\ninvlpg [abs LARGE + 0x1ff000]\nmov eax, [abs LARGE + 0x12345]\nstop",
  },
  { name: "invlpg.noncanonical", level: "k64", code: "mov rax, NONCANONICAL\ninvlpg [rax]\nstop" },
];

/** QEMU 7.2 has no INVPCID: #UD. The descriptor is at DATA; `setup` makes it. */
const INVPCID = 'SDM vol. 2, "INVPCID"';
const invpcid = (name: string, type: string, setup: string, end: Readonly<Record<string, string>>): Case => ({
  name: `invpcid.${name}`,
  level: "k64",
  code: `mov eax, ${type}\ninvpcid rax, [abs DATA]\nstop`,
  setup,
  manual: { fields: end, why: INVPCID },
});
const DONE = { v: "80", ip: "400012" };
const REFUSED = { v: "d", e: "0", ip: "400005" };
const invpcids: readonly Case[] = [
  invpcid("address", "0", "data DATA, 0\ndata DATA + 8, HOLE", DONE),
  invpcid("address-noncanonical", "0", "data DATA, 0\ndata DATA + 8, NONCANONICAL", REFUSED),
  invpcid("context", "1", "data DATA, 0", DONE),
  invpcid("all", "2", "data DATA, 0", DONE),
  invpcid("not-global", "3", "data DATA, 0", DONE),
  invpcid("type-4", "4", "data DATA, 0", REFUSED),
  invpcid("reserved", "2", "data DATA, 0x1000", REFUSED),
  invpcid("id-without-pcide", "1", "data DATA, 5", REFUSED),
  invpcid("id", "1", "data DATA, 5\ncr cr4, 0x20000", DONE),
  invpcid("missing", "2", "pte DATA, 0", { v: "e", e: "0", ip: "400005", c2: "410000" }),
];
const implicit: readonly Case[] = [
  {
    name: "smap.descriptor-table",
    level: "k64",
    code: "mov eax, 7\nmov ds, eax\nstop",
    rflags: 2 | Flag.AC,
    setup:
      "mov rax, [abs LDT]\nmov [abs ALIAS + DATA4], rax\nmov rax, 0x00008241d00000ff\nmov [abs GDT + S_ldt], rax\nmov ax, S_ldt\nlldt ax\ncr cr4, 0x200000",
    manual: {
      fields: { v: "e", e: "1", ip: "400005", c2: "41d000", ds: "" },
      why: 'SDM vol. 3, "Access Rights": an access to the LDT is implicit, AC does not help',
    },
  },
  { name: "super.stack", level: "u64", code: "mov esp, SUPER + 0x800\npush rax\nstop" },
  { name: "super.descriptor-table", level: "u64", code: "mov eax, 7\nmov ds, eax\nstop" },
  ...atLevels(["k64"], {
    name: "smap.frame-on-user-page",
    code: "mov esp, DATA + 0x800\nstop",
    setup: "cr cr4, 0x200000",
  }),
  ...atLevels(["k64"], {
    name: "smap.frame-ac",
    code: "mov esp, DATA + 0x800\nstop",
    setup: "cr cr4, 0x200000",
    rflags: 2 | Flag.AC,
  }),
  {
    name: "smap.stac-clac",
    level: "k64",
    code: "stac\nmov eax, [abs DATA]\nclac\nmov ebx, [abs DATA]\nstop",
    setup: "cr cr4, 0x200000",
  },
  {
    name: "smap.popf",
    level: "k64",
    code: "pushfq\npop rbx\nmov eax, ebx\nor eax, 0x40000\npush rax\npopfq\nmov ecx, [abs DATA]\npush rbx\npopfq\nmov ecx, [abs DATA]\nstop",
    setup: "cr cr4, 0x200000",
  },
];

export const PAGING: readonly Case[] = [
  ...plain,
  ...modes,
  ...upper,
  ...huge,
  ...crossing,
  ...kernelCrossing,
  ...fetches,
  ...invalidations,
  ...invpcids,
  ...implicit,
];
