/** String instructions that fault in the middle, and are restarted; forward and backward, at each width. */
import { ARITHMETIC, type Case, Flag, type Level } from "./case.js";

/** Registers at which they begin, so that the third element is on the other side of the border at HOLE or before DATA2. */
const FORWARD = (size: number): string => `0x${(0x411000 - 2 * size).toString(16)}`;
const BACKWARD = (size: number): string => `0x${(0x412000 + size).toString(16)}`;
const SIZES = { b: 1, w: 2, d: 4, q: 8 } as const;
type Size = keyof typeof SIZES;

/** `at` = the side that reaches the missing page; the other is at DATA2. */
function setRegisters(at: string, side: "source" | "destination"): string {
  const other = "DATA2 + 0x100";
  return side === "source" ? `mov esi, ${at}\nmov edi, ${other}` : `mov esi, ${other}\nmov edi, ${at}`;
}
const OPERATIONS: readonly (readonly [name: string, code: (s: Size) => string, side: "source" | "destination"])[] = [
  ["movs-source", (s) => `rep movs${s}`, "source"],
  ["movs-destination", (s) => `rep movs${s}`, "destination"],
  ["stos", (s) => `rep stos${s}`, "destination"],
  ["lods", (s) => `rep lods${s}`, "source"],
  ["scas", (s) => `repne scas${s}`, "destination"],
  ["cmps-source", (s) => `repne cmps${s}`, "source"],
  ["cmps-destination", (s) => `repne cmps${s}`, "destination"],
];
/** The page behind the missing one is for both directions. */
const WRITABLE = "pte RDONLY, RDONLY | 7";
/** Maps the missing page and goes on. */
const HANDLER =
  "\nbits 64\n.fault: add rsp, 8\npush rax\nmov rax, cr2\nmov [abs DATA4], rax\nmov rax, [rsp + 8]\nmov [abs DATA4 + 8], rax\nmov qword [abs PT + 0x88], HOLE | 7\npop rax\niretq";

const RESTORED =
  'SDM vol. 2, "REP/REPE/REPZ/REPNE/REPNZ": at a page fault of CMPS or SCAS, EFLAGS is what it was before the instruction';
const faulting: readonly Case[] = OPERATIONS.flatMap(([name, code, side]) =>
  (Object.keys(SIZES) as Size[]).flatMap((s) =>
    (["forward", "backward"] as const).flatMap((direction) => {
      const level: Level = s === "q" || direction === "forward" ? "u64" : "u32";
      const at = direction === "forward" ? FORWARD(SIZES[s]) : BACKWARD(SIZES[s]);
      const start = `${direction === "forward" ? "cld" : "std"}\n${setRegisters(at, side)}\nmov ecx, 6\nmov eax, 0x7a7b7c7d\n${code(s)}\nstop`;
      const compares = name.startsWith("scas") || name.startsWith("cmps");
      const df = direction === "forward" ? 0 : Flag.DF;
      const kept = { fl: (2 | ARITHMETIC | Flag.RF | df).toString(16) };
      return [
        {
          name: `strings.${name}.${s}.${direction}`,
          level,
          code: start,
          setup: WRITABLE,
          ...(compares ? { rflags: 2 | ARITHMETIC, manual: { fields: kept, why: RESTORED } } : {}),
        },
        {
          name: `strings.${name}.${s}.${direction}.restarted`,
          level,
          code: `${start}${HANDLER}`,
          setup: `${WRITABLE}\ngate 14, @fault`,
        },
      ] satisfies Case[];
    }),
  ),
);
const others: readonly Case[] = [
  {
    name: "strings.address-32",
    level: "u64",
    code: "mov rsi, 0x500410ff8\nmov rdi, 0x600417000\nmov rcx, 0x700000004\na32 rep movsq\nstop",
  },
  {
    name: "strings.address-32.single",
    level: "u64",
    code: "mov rsi, 0x500410100\nmov rdi, 0x600417000\na32 movsb\nstop",
  },
  {
    name: "strings.address-32.wrap",
    level: "u64",
    code: "mov esi, DATA\nmov edi, -2\nmov ecx, 4\na32 rep movsb\nstop",
  },
  {
    name: "strings.address-16.u32",
    level: "u32",
    code: "mov esi, 0x1234ffff\nmov edi, DATA\nmov ecx, 0x10002\na16 lodsb\nstop",
    setup: "desc S_free, 0x00cff3410000ffff",
  },
  { name: "strings.no-count.hole", level: "u64", code: "mov edi, HOLE\nxor ecx, ecx\nrep stosb\nstop" },
  { name: "strings.read-only", level: "u64", code: "mov edi, RDONLY - 16\nmov esi, DATA\nmov ecx, 8\nrep movsq\nstop" },
  { name: "strings.both-missing", level: "u64", code: "mov edi, HOLE2\nmov esi, HOLE\nmovsb\nstop" },
  { name: "strings.cmps-both-missing", level: "u64", code: "mov edi, HOLE2\nmov esi, HOLE\ncmpsb\nstop" },
  { name: "strings.noncanonical", level: "u64", code: "mov rdi, NONCANONICAL - 8\nmov ecx, 4\nrep stosq\nstop" },
  {
    name: "strings.source-noncanonical",
    level: "u64",
    code: "mov rsi, NONCANONICAL\nmov edi, DATA2\nmov ecx, 4\nrep movsd\nstop",
  },
  {
    name: "strings.backward-noncanonical",
    level: "u64",
    code: "std\nmov rsi, -8\nshl rsi, 47\nmov edi, DATA2\nmov ecx, 4\nrep movsq\nstop",
  },
  {
    name: "strings.fs",
    level: "u64",
    code: "mov esi, 0x100\nmov edi, DATA2\nmov ecx, 3\nfs rep movsq\nstop",
    setup: "msr 0xc0000100, DATA",
  },
  { name: "strings.overlap", level: "u64", code: "mov esi, DATA\nmov edi, DATA + 1\nmov ecx, 16\nrep movsb\nstop" },
  {
    name: "strings.overlap-backward",
    level: "u64",
    code: "std\nmov esi, DATA + 31\nmov edi, DATA + 30\nmov ecx, 16\nrep movsb\nstop",
  },
  { name: "strings.scas-found", level: "u64", code: "mov edi, DATA\nmov ecx, 32\nmov al, 0x11\nrepne scasb\nstop" },
  {
    name: "strings.scas-while",
    level: "u64",
    code: "mov edi, RDONLY - 16\nmov ecx, 32\nxor eax, eax\nrepe scasb\nstop",
    setup: "mov qword [abs PT + 0x88], HOLE | 7",
  },
  { name: "strings.cmps-flags", level: "u64", code: "mov esi, DATA\nmov edi, DATA + 8\nmov ecx, 32\nrepe cmpsb\nstop" },
  { name: "strings.xlat-hole", level: "u64", code: "mov ebx, HOLE - 8\nmov eax, 8\nxlatb\nstop" },
  {
    name: "strings.supervisor",
    level: "u64",
    code: "mov esi, DATA\nmov edi, SUPER - 16\nmov ecx, 32\nrep movsb\nstop",
    setup: "mov qword [abs PT + 0x90], RDONLY | 7",
  },
  {
    name: "strings.page-edges",
    level: "u64",
    code: "mov esi, DATA2 + 0xff9\nmov edi, DATA4 + 0xffd\nmov ecx, 3\nrep movsq\nstop",
  },
  {
    name: "strings.long",
    level: "u64",
    code: "mov esi, DATA2\nmov edi, DATA4\nmov ecx, 0x1800 / 8\nrep movsq\nmov edi, DATA4\nmov ecx, 0x1800 / 8\nxor eax, eax\nrep stosq\nstop",
    open: ["m"],
  },
];
export const STRINGS: readonly Case[] = [...faulting, ...others];
