/** Rows of the integer and system instructions. */
import * as B from "./bit-manipulation.js";
import * as I from "./integer.js";
import type { Definition } from "./sem.js";
import { row } from "./table.js";

/** Numbers of the runtime's procedures (assembly/system.ts has the same list from the generated layout). */
export const System = {
  hostCall: 0,
  cli: 1,
  sti: 2,
  pushf: 3,
  popf: 4,
  iret: 5,
  syscall: 6,
  sysret: 7,
  swapgs: 8,
  movFromCr: 9,
  movToCr: 10,
  movFromDr: 11,
  movToDr: 12,
  lgdt: 13,
  lidt: 14,
  sgdt: 15,
  sidt: 16,
  lldt: 17,
  ltr: 18,
  sldt: 19,
  str: 20,
  invlpg: 21,
  clts: 22,
  lmsw: 23,
  smsw: 24,
  movToSeg: 25,
  movFromSeg: 26,
  hlt: 27,
  int: 28,
  int3: 29,
  int1: 30,
  wbinvd: 31,
  ud: 32,
  rdfsbase: 33,
  rdgsbase: 34,
  wrfsbase: 35,
  wrgsbase: 36,
  fxsave: 37,
  fxrstor: 38,
  xsave: 39,
  xrstor: 40,
  ldmxcsr: 41,
  stmxcsr: 42,
  xgetbv: 43,
  xsetbv: 44,
  cmpxchg8b: 45,
  lar: 46,
  lsl: 47,
  verr: 48,
  verw: 49,
  enter: 50,
  clac: 51,
  stac: 52,
  pushSeg: 53,
  popSeg: 54,
  sysenter: 55,
  sysexit: 56,
  into: 57,
  cpuid: 58,
  rdmsr: 59,
  wrmsr: 60,
  rdtsc: 61,
  rdtscp: 62,
  in: 63,
  out: 64,
  rdrand: 65,
  rdseed: 66,
  crc32: 67,
  invpcid: 68,
  rdpid: 69,
  rdpmc: 70,
  vmcall: 71,
  mwait: 72,
  xsaveopt: 73,
  push: 74,
  pop: 75,
  pusha: 76,
  popa: 77,
  pushImmediate: 78,
  leave: 79,
  callNear: 80,
  retNear: 81,
  callNearIndirect: 82,
  loop: 83,
  loope: 84,
  loopne: 85,
  jcxz: 86,
  ud0: 87,
  xlat: 88,
  bound: 89,
  arpl: 90,
  daa: 91,
  das: 92,
  aaa: 93,
  aas: 94,
  aam: 95,
  aad: 96,
  lds: 97,
  fwait: 98,
  movnti: 99,
  callFar: 100,
  retFar: 101,
  jmpFar: 102,
  farPointerCall: 103,
  farPointerJmp: 104,
  checkSecondPage: 105,
  noFpu: 106,
  xsavec: 107,
  salc: 108,
  monitor: 109,
  icebp: 110,
  checkDebug: 111,
  gp: 112,
  jmpNarrow: 113,
} as const;
/** Operations of string instructions. */
export const StringOp = { movs: 0, cmps: 1, stos: 2, lods: 3, scas: 4, ins: 5, outs: 6 } as const;

const procedure =
  (name: "system" | "string" | "farTransfer" | "x87" | "vector" | "legacy"): Definition =>
  (s) =>
    s.leave(s.call(name, s.record()));
export const system = procedure("system");
const string = procedure("string");
const legacy = procedure("legacy");

const alu = [I.add, I.or, I.adc, I.sbb, I.and, I.sub, I.xor, I.cmp] as const;
const aluNames = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"] as const;
alu.forEach((define, i) => {
  const name = aluNames[i]!;
  const o = i * 8;
  const hex = (n: number): string => n.toString(16).padStart(2, "0");
  const lock = name === "cmp" ? {} : ({ lock: true } as const);
  row(name, hex(o), "Eb,Gb", define, lock);
  row(name, hex(o + 1), "Ev,Gv", define, lock);
  row(name, hex(o + 2), "Gb,Eb", define);
  row(name, hex(o + 3), "Gv,Ev", define);
  row(name, hex(o + 4), "AL,Ib", define);
  row(name, hex(o + 5), "rAX,Iz", define);
  row(name, `80 /${i}`, "Eb,Ib", define, lock);
  row(name, `81 /${i}`, "Ev,Iz", define, lock);
  row(name, `82 /${i}`, "Eb,Ib", define, { ...lock, not64: true });
  row(name, `83 /${i}`, "Ev,Ibs", define, lock);
});
row("test", "84", "Eb,Gb", I.test);
row("test", "85", "Ev,Gv", I.test);
row("test", "a8", "AL,Ib", I.test);
row("test", "a9", "rAX,Iz", I.test);
for (const d of [0, 1]) {
  row("test", `f6 /${d}`, "Eb,Ib", I.test);
  row("test", `f7 /${d}`, "Ev,Iz", I.test);
}
row("mov", "88", "Eb,Gb", I.mov);
row("mov", "89", "Ev,Gv", I.mov);
row("mov", "8a", "Gb,Eb", I.mov);
row("mov", "8b", "Gv,Ev", I.mov);
row("mov", "c6 /0", "Eb,Ib", I.mov);
row("mov", "c7 /0", "Ev,Iz", I.mov);
row("mov", "b0+", "Zb,Ib", I.mov);
row("mov", "b8+", "Zv,Iv", I.mov);
row("mov", "a0", "AL,Ob", I.mov);
row("mov", "a1", "rAX,Ov", I.mov);
row("mov", "a2", "Ob,AL", I.mov);
row("mov", "a3", "Ov,rAX", I.mov);
row("lea", "8d", "Gv,M", I.lea);
row("xchg", "86", "Eb,Gb", I.xchg, { lock: true });
row("xchg", "87", "Ev,Gv", I.xchg, { lock: true });
row("movzx", "0f b6", "Gv,Eb", I.movzx);
row("movzx", "0f b7", "Gv,Ew", I.movzx);
row("movsx", "0f be", "Gv,Eb", I.movsx);
row("movsx", "0f bf", "Gv,Ew", I.movsx);
row("movsxd", "63", "Gv,Ez", I.movsx, { only64: true }, "movsx");
row("inc", "40+", "Zv", I.inc, { not64: true });
row("dec", "48+", "Zv", I.dec, { not64: true });
row("inc", "fe /0", "Eb", I.inc, { lock: true });
row("dec", "fe /1", "Eb", I.dec, { lock: true });
row("inc", "ff /0", "Ev", I.inc, { lock: true });
row("dec", "ff /1", "Ev", I.dec, { lock: true });
row("not", "f6 /2", "Eb", I.not, { lock: true });
row("not", "f7 /2", "Ev", I.not, { lock: true });
row("neg", "f6 /3", "Eb", I.neg, { lock: true });
row("neg", "f7 /3", "Ev", I.neg, { lock: true });
row("mul", "f6 /4", "Eb", I.mul);
row("mul", "f7 /4", "Ev", I.mul);
row("imul", "f6 /5", "Eb", I.imul1, {}, "imul1");
row("imul", "f7 /5", "Ev", I.imul1, {}, "imul1");
row("div", "f6 /6", "Eb", I.div);
row("div", "f7 /6", "Ev", I.div);
row("idiv", "f6 /7", "Eb", I.idiv);
row("idiv", "f7 /7", "Ev", I.idiv);
row("imul", "0f af", "Gv,Ev", I.imul2, {}, "imul2");
row("imul", "69", "Gv,Ev,Iz", I.imul3, {}, "imul3");
row("imul", "6b", "Gv,Ev,Ibs", I.imul3, {}, "imul3");
const shifts = [I.rol, I.ror, I.rcl, I.rcr, I.shl, I.shr, I.shl, I.sar] as const;
["rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar"].forEach((name, i) => {
  const define = shifts[i]!;
  row(name, `c0 /${i}`, "Eb,Ib", define);
  row(name, `c1 /${i}`, "Ev,Ib", define);
  row(name, `d0 /${i}`, "Eb,1", define);
  row(name, `d1 /${i}`, "Ev,1", define);
  row(name, `d2 /${i}`, "Eb,CL", define);
  row(name, `d3 /${i}`, "Ev,CL", define);
});
row("shld", "0f a4", "Ev,Gv,Ib", I.shld);
row("shld", "0f a5", "Ev,Gv,CL", I.shld);
row("shrd", "0f ac", "Ev,Gv,Ib", I.shrd);
row("shrd", "0f ad", "Ev,Gv,CL", I.shrd);
const bitOps = [I.bt, I.bts, I.btr, I.btc] as const;
["bt", "bts", "btr", "btc"].forEach((name, i) => {
  const lock = i === 0 ? {} : ({ lock: true } as const);
  row(name, `0f ${(0xa3 + i * 8).toString(16)}`, "Ev,Gv", bitOps[i]!, { ...lock, bitString: true });
  row(name, `0f ba /${4 + i}`, "Ev,Ib", bitOps[i]!, lock);
});
row("tzcnt", "f3 0f bc", "Gv,Ev", I.tzcnt);
row("lzcnt", "f3 0f bd", "Gv,Ev", I.lzcnt);
row("bsf", "0f bc", "Gv,Ev", I.bsf);
row("bsr", "0f bd", "Gv,Ev", I.bsr);
row("popcnt", "f3 0f b8", "Gv,Ev", I.popcnt);
row("bswap", "0f c8+", "Zv", I.bswap);
row("movbe", "np 0f38 f0", "Gv,M", I.movbe);
row("movbe", "np 0f38 f1", "M,Gv", I.movbe);
row("movbe", "66 0f38 f0", "Gv,M", I.movbe);
row("movbe", "66 0f38 f1", "M,Gv", I.movbe);
row("adcx", "66 0f38 f6", "Gy,Ey", I.adcx);
row("adox", "f3 0f38 f6", "Gy,Ey", I.adox);
row("andn", "vex np 0f38 f2", "Gy,By,Ey", B.andn);
row("blsr", "vex np 0f38 f3 /1", "By,Ey", B.blsr);
row("blsmsk", "vex np 0f38 f3 /2", "By,Ey", B.blsmsk);
row("blsi", "vex np 0f38 f3 /3", "By,Ey", B.blsi);
row("bzhi", "vex np 0f38 f5", "Gy,Ey,By", B.bzhi);
row("pdep", "vex f2 0f38 f5", "Gy,By,Ey", B.pdep);
row("pext", "vex f3 0f38 f5", "Gy,By,Ey", B.pext);
row("mulx", "vex f2 0f38 f6", "Gy,By,Ey", B.mulx);
row("bextr", "vex np 0f38 f7", "Gy,Ey,By", B.bextr);
row("shlx", "vex 66 0f38 f7", "Gy,Ey,By", B.shlx);
row("sarx", "vex f3 0f38 f7", "Gy,Ey,By", B.sarx);
row("shrx", "vex f2 0f38 f7", "Gy,Ey,By", B.shrx);
row("rorx", "vex f2 0f3a f0", "Gy,Ey,Ib", B.rorx);
row("xadd", "0f c0", "Eb,Gb", I.xadd, { lock: true });
row("xadd", "0f c1", "Ev,Gv", I.xadd, { lock: true });
row("cmpxchg", "0f b0", "Eb,Gb", I.cmpxchg, { lock: true });
row("cmpxchg", "0f b1", "Ev,Gv", I.cmpxchg, { lock: true });
row("cbw", "98", "", I.cbw);
row("cwd", "99", "", I.cwd);
for (let cc = 0; cc < 16; cc++) {
  const n = ["o", "no", "b", "ae", "z", "nz", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"][cc]!;
  row(`j${n}`, (0x70 + cc).toString(16), "Jb", I.jcc(cc), { cc });
  row(`j${n}`, `0f ${(0x80 + cc).toString(16)}`, "Jz", I.jcc(cc), { cc });
  row(`set${n}`, `0f ${(0x90 + cc).toString(16)}`, "Eb", I.setcc(cc));
  row(`cmov${n}`, `0f ${(0x40 + cc).toString(16)}`, "Gv,Ev", I.cmovcc(cc));
}
// the stack in 64-bit mode; outside of it the same opcodes are procedures of the runtime
row("push", "50+", "Zv", I.push, { d64: true, only64: true });
row("pop", "58+", "Zv", I.pop, { d64: true, only64: true });
row("push", "ff /6", "Ev", I.push, { d64: true, only64: true });
row("pop", "8f /0", "Ev", I.pop, { d64: true, only64: true });
row("push", "68", "Iz", I.pushImmediate, { d64: true, only64: true }, "pushImmediate");
row("push", "6a", "Ibs", I.pushImmediate, { d64: true, only64: true }, "pushImmediate");
row("leave", "c9", "", I.leave, { d64: true, only64: true });
row("call", "e8", "Jz", I.call, { d64: true, only64: true, ends: true, width: 64 });
row("call", "ff /2", "Ev", I.callIndirect, { d64: true, only64: true, ends: true, width: 64 }, "callIndirect");
row("ret", "c3", "", I.ret, { d64: true, only64: true, ends: true, width: 64 });
row("ret", "c2", "Iw", I.retImmediate, { d64: true, only64: true, ends: true, width: 64 }, "retImmediate");
row("jmp", "ff /4", "Ev", I.jmpIndirect, { d64: true, only64: true, ends: true, width: 64 }, "jmpIndirect");
row("jmp", "eb", "Jb", I.jmp, { ends: true, width: 64 });
row("jmp", "e9", "Jz", I.jmp, { ends: true, width: 64 });
const legacyStack = (name: string, encoding: string, operands: string, selector: number, more = {}): void =>
  row(name, encoding, operands, legacy, { not64: true, selector, ...more }, "legacy");
legacyStack("push", "50+", "Zv", System.push);
legacyStack("pop", "58+", "Zv", System.pop);
legacyStack("push", "ff /6", "Ev", System.push);
legacyStack("pop", "8f /0", "Ev", System.pop);
legacyStack("push", "68", "Iz", System.pushImmediate);
legacyStack("push", "6a", "Ibs", System.pushImmediate);
legacyStack("leave", "c9", "", System.leave);
legacyStack("call", "e8", "Jz", System.callNear, { ends: true });
legacyStack("call", "ff /2", "Ev", System.callNearIndirect, { ends: true });
legacyStack("ret", "c3", "", System.retNear, { ends: true });
legacyStack("ret", "c2", "Iw", System.retNear, { ends: true });
row(
  "jmp",
  "ff /4",
  "Ev",
  (s) => s.jumpTo(s.width === 64 ? s.readU(0) : s.extendU(s.readU(0))),
  { not64: true, ends: true },
  "jmpIndirectLegacy",
);
legacyStack("pusha", "60", "", System.pusha);
legacyStack("popa", "61", "", System.popa);
for (const [n, a, b] of [
  ["daa", "27", System.daa],
  ["das", "2f", System.das],
  ["aaa", "37", System.aaa],
  ["aas", "3f", System.aas],
  ["salc", "d6", System.salc],
] as const)
  legacyStack(n, a, "", b);
legacyStack("aam", "d4", "Ib", System.aam);
legacyStack("aad", "d5", "Ib", System.aad);
row("enter", "c8", "Iw", system, { selector: System.enter, d64: true }, "system");
row("loopne", "e0", "Jb", system, { selector: System.loopne, ends: true }, "system");
row("loope", "e1", "Jb", system, { selector: System.loope, ends: true }, "system");
row("loop", "e2", "Jb", system, { selector: System.loop, ends: true }, "system");
row("jcxz", "e3", "Jb", system, { selector: System.jcxz, ends: true }, "system");
row("xlat", "d7", "", system, { selector: System.xlat, string: true }, "system");

row("stc", "f9", "", I.stc);
row("clc", "f8", "", I.clc);
row("cmc", "f5", "", I.cmc);
row("std", "fd", "", I.std);
row("cld", "fc", "", I.cld);
row("lahf", "9f", "", I.lahf);
row("sahf", "9e", "", I.sahf);
row("nop", "90", "", I.nop);
row("pause", "f3 90", "", I.nop, {}, "nop");
row("xchg", "91", "Zv,rAX", I.xchg);
for (let k = 2; k < 8; k++) row("xchg", (0x90 + k).toString(16), "Zv,rAX", I.xchg);
row("nop", "0f 0d", "Ev", I.nop, {}, "nopE");
for (let k = 0x18; k <= 0x1f; k++) row("nop", `0f ${k.toString(16)}`, "Ev", I.nop, {}, "nopE");
row("lfence", "np 0f ae /5 mod3", "", I.nop, {}, "nop");
row("mfence", "np 0f ae /6 mod3", "", I.fence);
row("sfence", "np 0f ae /7 mod3", "", I.nop, {}, "nop");
row("clflush", "np 0f ae /7 mem", "Mb", I.flushLine, {}, "flushLine");
row("clwb", "66 0f ae /6 mem", "Mb", I.flushLine, {}, "flushLine");
row("clflushopt", "66 0f ae /7 mem", "Mb", I.flushLine, {}, "flushLine");
row("movnti", "np 0f c3", "My,Gy", I.mov, {}, "mov");

const sys = (name: string, encoding: string, operands: string, selector: number, more = {}): void =>
  row(name, encoding, operands, system, { selector, ...more }, "system");
sys("cli", "fa", "", System.cli);
sys("sti", "fb", "", System.sti);
sys("pushf", "9c", "", System.pushf, { d64: true });
sys("popf", "9d", "", System.popf, { d64: true, ends: true });
sys("iret", "cf", "", System.iret, { ends: true });
sys("syscall", "0f 05", "", System.syscall, { ends: true });
sys("sysret", "0f 07", "", System.sysret, { ends: true });
sys("sysenter", "0f 34", "", System.sysenter, { ends: true });
sys("sysexit", "0f 35", "", System.sysexit, { ends: true });
sys("swapgs", "0f 01 /7 rm0", "", System.swapgs);
sys("rdtscp", "0f 01 /7 rm1", "", System.rdtscp);
sys("mov", "0f 20", "Rq,Cq", System.movFromCr);
sys("mov", "0f 22", "Cq,Rq", System.movToCr, { ends: true });
sys("mov", "0f 21", "Rq,Dq", System.movFromDr, { noRexR: true });
sys("mov", "0f 23", "Dq,Rq", System.movToDr, { ends: true, noRexR: true });
sys("sgdt", "0f 01 /0 mem", "Mb", System.sgdt);
sys("sidt", "0f 01 /1 mem", "Mb", System.sidt);
sys("lgdt", "0f 01 /2 mem", "Mb", System.lgdt);
sys("lidt", "0f 01 /3 mem", "Mb", System.lidt);
sys("smsw", "0f 01 /4", "Ev", System.smsw);
sys("lmsw", "0f 01 /6", "Ew", System.lmsw, { ends: true });
sys("invlpg", "0f 01 /7 mem", "Mb", System.invlpg, { ends: true });
sys("vmcall", "0f 01 /0 rm1", "", System.vmcall);
sys("monitor", "0f 01 /1 rm0", "", System.monitor);
sys("mwait", "0f 01 /1 rm1", "", System.mwait);
sys("clac", "0f 01 /1 rm2", "", System.clac);
sys("stac", "0f 01 /1 rm3", "", System.stac);
sys("xgetbv", "np 0f 01 /2 rm0", "", System.xgetbv);
sys("xsetbv", "np 0f 01 /2 rm1", "", System.xsetbv);
sys("sldt", "0f 00 /0", "Ev", System.sldt);
sys("str", "0f 00 /1", "Ev", System.str);
sys("lldt", "0f 00 /2", "Ew", System.lldt);
sys("ltr", "0f 00 /3", "Ew", System.ltr);
sys("verr", "0f 00 /4", "Ew", System.verr);
sys("verw", "0f 00 /5", "Ew", System.verw);
sys("lar", "0f 02", "Gv,Ew", System.lar);
sys("lsl", "0f 03", "Gv,Ew", System.lsl);
sys("clts", "0f 06", "", System.clts, { ends: true });
sys("invd", "0f 08", "", System.wbinvd);
sys("wbinvd", "0f 09", "", System.wbinvd);
sys("ud2", "0f 0b", "", System.ud, { ends: true });
sys("ud1", "0f b9", "Gv,Ev", System.ud, { ends: true });
sys("ud0", "0f ff", "Gv,Ev", System.ud, { ends: true });
sys("mov", "8c", "Ev,Sw", System.movFromSeg);
sys("mov", "8e", "Sw,Ew", System.movToSeg, { ends: true });
sys("hlt", "f4", "", System.hlt, { ends: true });
sys("int", "cd", "Ib", System.int, { ends: true });
sys("int3", "cc", "", System.int3, { ends: true });
sys("int1", "f1", "", System.icebp, { ends: true });
sys("into", "ce", "", System.into, { ends: true, not64: true });
sys("rdfsbase", "f3 0f ae /0 mod3", "Ey", System.rdfsbase, { only64: true });
sys("rdgsbase", "f3 0f ae /1 mod3", "Ey", System.rdgsbase, { only64: true });
sys("wrfsbase", "f3 0f ae /2 mod3", "Ey", System.wrfsbase, { only64: true });
sys("wrgsbase", "f3 0f ae /3 mod3", "Ey", System.wrgsbase, { only64: true });
sys("fxsave", "np 0f ae /0 mem", "Mb", System.fxsave, { fpu: true });
sys("fxrstor", "np 0f ae /1 mem", "Mb", System.fxrstor, { fpu: true });
sys("ldmxcsr", "np 0f ae /2 mem", "Md", System.ldmxcsr, { sse: true });
sys("stmxcsr", "np 0f ae /3 mem", "Md", System.stmxcsr, { sse: true });
sys("xsave", "np 0f ae /4 mem", "Mb", System.xsave, { fpu: true });
sys("xrstor", "np 0f ae /5 mem", "Mb", System.xrstor, { fpu: true });
sys("xsaveopt", "np 0f ae /6 mem", "Mb", System.xsave, { fpu: true });
sys("xsavec", "np 0f c7 /4 mem", "Mb", System.xsavec, { fpu: true });
sys("cmpxchg8b", "0f c7 /1 mem", "Mb", System.cmpxchg8b, { lock: true });
for (const prefix of ["np", "66"]) {
  sys("rdrand", `${prefix} 0f c7 /6 mod3`, "Ev", System.rdrand);
  sys("rdseed", `${prefix} 0f c7 /7 mod3`, "Ev", System.rdseed);
}
sys("rdpid", "f3 0f c7 /7 mod3", "Ey", System.rdpid);
sys("cpuid", "0f a2", "", System.cpuid);
sys("rdmsr", "0f 32", "", System.rdmsr);
sys("wrmsr", "0f 30", "", System.wrmsr, { ends: true });
sys("rdtsc", "0f 31", "", System.rdtsc);
sys("rdpmc", "0f 33", "", System.rdpmc);
sys("in", "e4", "AL,Ib", System.in);
sys("in", "e5", "rAX,Ib", System.in);
sys("in", "ec", "AL,DX", System.in);
sys("in", "ed", "rAX,DX", System.in);
sys("out", "e6", "Ib,AL", System.out);
sys("out", "e7", "Ib,rAX", System.out);
sys("out", "ee", "DX,AL", System.out);
sys("out", "ef", "DX,rAX", System.out);
sys("push fs", "0f a0", "", System.pushSeg, { d64: true });
sys("push gs", "0f a8", "", System.pushSeg, { d64: true });
sys("pop fs", "0f a1", "", System.popSeg, { d64: true, ends: true });
sys("pop gs", "0f a9", "", System.popSeg, { d64: true, ends: true });
for (const [seg, push, pop] of [
  ["es", "06", "07"],
  ["ss", "16", "17"],
  ["ds", "1e", "1f"],
] as const) {
  sys(`push ${seg}`, push, "", System.pushSeg, { not64: true });
  sys(`pop ${seg}`, pop, "", System.popSeg, { not64: true, ends: true });
}
sys("push cs", "0e", "", System.pushSeg, { not64: true });
sys("crc32", "f2 0f38 f0", "Gy,Eb", System.crc32);
sys("crc32", "f2 0f38 f1", "Gy,Ev", System.crc32);
sys("invpcid", "66 0f38 82", "Gq,M", System.invpcid, { ends: true });
sys("fwait", "9b", "", System.fwait);
sys("call far", "ff /3 mem", "Mv", System.callFar, { ends: true });
sys("jmp far", "ff /5 mem", "Mv", System.jmpFar, { ends: true });
sys("ret far", "ca", "Iw", System.retFar, { ends: true });
sys("ret far", "cb", "", System.retFar, { ends: true });
sys("call far", "9a", "Ap", System.farPointerCall, { ends: true, not64: true });
sys("jmp far", "ea", "Ap", System.farPointerJmp, { ends: true, not64: true });
for (const [n, code] of [
  ["les", "c4"],
  ["lds", "c5"],
  ["lss", "0f b2"],
  ["lfs", "0f b4"],
  ["lgs", "0f b5"],
] as const)
  sys(n, code, "Gv,Mv", System.lds, n === "les" || n === "lds" ? { not64: true, ends: true } : { ends: true });
sys("arpl", "63", "Ew,Gw", System.arpl, { not64: true });
sys("bound", "62 mem", "Gv,Mv", System.bound, { not64: true });

const strings = (name: string, op: number, code: number): void => {
  row(`${name}b`, code.toString(16), "", string, { selector: op, string: true, width: 8 }, "string");
  row(name, (code + 1).toString(16), "", string, { selector: op, string: true }, "string");
};
strings("movs", StringOp.movs, 0xa4);
strings("cmps", StringOp.cmps, 0xa6);
strings("stos", StringOp.stos, 0xaa);
strings("lods", StringOp.lods, 0xac);
strings("scas", StringOp.scas, 0xae);
strings("ins", StringOp.ins, 0x6c);
strings("outs", StringOp.outs, 0x6e);

for (let k = 0xd8; k <= 0xdf; k++)
  row("x87", k.toString(16), "Ev", procedure("x87"), { selector: k - 0xd8, fpu: true }, "x87");
