/** Rows of the SSE and SSE2 instructions, with the MMX forms of the same operations. */
import "./rows-vector-mmx.js";
import "./rows-vector-sse4.js";
import type { Definition } from "./sem.js";
import * as V from "./vector.js";
import { VectorProcedure } from "./vector-codes.js";
import * as F from "./vector-float.js";
import { type Binary, binary, mm, op, Simd } from "./vector-ops.js";
import { integer, mmx, sse, vectorProcedure } from "./vector-row.js";

const hex = (n: number): string => n.toString(16).padStart(2, "0");

// moves
for (const [name, prefix] of [
  ["movups", "np"],
  ["movupd", "66"],
] as const) {
  sse(name, `${prefix} 0f 10`, "Vx,Wx", V.move, "vmov");
  sse(name, `${prefix} 0f 11`, "Wx,Vx", V.move, "vmov");
}
for (const [name, prefix] of [
  ["movaps", "np"],
  ["movapd", "66"],
] as const) {
  sse(name, `${prefix} 0f 28`, "Vx,Wx", V.moveAligned, "vmova");
  sse(name, `${prefix} 0f 29`, "Wx,Vx", V.moveAligned, "vmova");
}
sse("movdqa", "66 0f 6f", "Vx,Wx", V.moveAligned, "vmova");
sse("movdqa", "66 0f 7f", "Wx,Vx", V.moveAligned, "vmova");
sse("movdqu", "f3 0f 6f", "Vx,Wx", V.move, "vmov");
sse("movdqu", "f3 0f 7f", "Wx,Vx", V.move, "vmov");
sse("lddqu", "f2 0f f0 mem", "Vx,Mx", V.move, "vmov");
sse("movntps", "np 0f 2b mem", "Mx,Vx", V.moveAligned, "vmova");
sse("movntpd", "66 0f 2b mem", "Mx,Vx", V.moveAligned, "vmova");
sse("movntdq", "66 0f e7 mem", "Mx,Vx", V.moveAligned, "vmova");
for (const [name, prefix, size, width] of [
  ["movss", "f3", "d", 32],
  ["movsd", "f2", "q", 64],
] as const) {
  sse(name, `${prefix} 0f 10 mem`, `Vx,M${size}`, V.loadLow, "vload");
  sse(name, `${prefix} 0f 10 mod3`, `Vx,W${size}`, V.moveLow(width));
  sse(name, `${prefix} 0f 11`, `W${size},Vx`, V.moveLow(width));
}
for (const [prefix, d] of [
  ["np", "ps"],
  ["66", "pd"],
] as const) {
  sse(`movl${d}`, `${prefix} 0f 12 mem`, "Vx,Mq", V.moveLow(64), "movlp");
  sse(`movl${d}`, `${prefix} 0f 13 mem`, "Mq,Vx", V.moveLow(64), "movlp");
  sse(`movh${d}`, `${prefix} 0f 16 mem`, "Vx,Mq", V.loadHigh, "movhpLoad");
  sse(`movh${d}`, `${prefix} 0f 17 mem`, "Mq,Vx", V.storeHigh, "movhpStore");
}
sse("movhlps", "np 0f 12 mod3", "Vx,Wx", V.moveHighToLow);
sse("movlhps", "np 0f 16 mod3", "Vx,Wq", V.loadHigh);
sse("movd", "66 0f 6e", "Vx,Ey", V.fromGeneral, "movdTo");
sse("movd", "66 0f 7e", "Ey,Vx", V.toGeneral, "movdFrom");
sse("movq", "f3 0f 7e", "Vx,Wq", V.loadLow, "vload");
sse("movq", "66 0f d6", "Wq,Vx", V.moveQ);
sse("movmskps", "np 0f 50 mod3", "Gd,Wx", V.moveMask(Simd.bitmask32));
sse("movmskpd", "66 0f 50 mod3", "Gd,Wx", V.moveMask(Simd.bitmask64));
sse("pmovmskb", "66 0f d7 mod3", "Gd,Wx", V.moveMask(Simd.bitmask8));
vectorProcedure("maskmovdqu", "66 0f f7 mod3", "Vx,Wx", VectorProcedure.maskmovdqu, { sse: true, string: true });

// float
const FORMATS = [
  ["ps", "np", "Wx"],
  ["pd", "66", "Wx"],
  ["ss", "f3", "Wd"],
  ["sd", "f2", "Wq"],
] as const;
for (const [format, prefix, w] of FORMATS) {
  const float = (name: string, code: number, define: Definition): void =>
    sse(`${name}${format}`, `${prefix} 0f ${hex(code)}`, `Vx,${w}`, define);
  float("sqrt", 0x51, F.arithmetic("sqrt", format));
  float("add", 0x58, F.arithmetic("add", format));
  float("mul", 0x59, F.arithmetic("mul", format));
  float("sub", 0x5c, F.arithmetic("sub", format));
  float("div", 0x5e, F.arithmetic("div", format));
  float("min", 0x5d, F.minMax("min", format));
  float("max", 0x5f, F.minMax("max", format));
  sse(`cmp${format}`, `${prefix} 0f c2`, `Vx,${w},Ib`, F.compare(format));
}
for (const [format, prefix, w] of [
  ["ps", "np", "Wx"],
  ["ss", "f3", "Wd"],
] as const) {
  sse(`rsqrt${format}`, `${prefix} 0f 52`, `Vx,${w}`, F.approximate("rsqrt", format));
  sse(`rcp${format}`, `${prefix} 0f 53`, `Vx,${w}`, F.approximate("rcp", format));
}
for (const [prefix, format, w] of [
  ["np", "ss", "Wd"],
  ["66", "sd", "Wq"],
] as const) {
  sse(`ucomi${format}`, `${prefix} 0f 2e`, `Vx,${w}`, F.compareFlags("ucomi", format));
  sse(`comi${format}`, `${prefix} 0f 2f`, `Vx,${w}`, F.compareFlags("comi", format));
}
for (const [prefix, format, w] of [
  ["f3", "ss", "Wd"],
  ["f2", "sd", "Wq"],
] as const) {
  sse(`cvtsi2${format}`, `${prefix} 0f 2a`, "Vx,Ey", F.fromInteger(format));
  sse(`cvtt${format}2si`, `${prefix} 0f 2c`, `Gy,${w}`, F.toInteger(format, true));
  sse(`cvt${format}2si`, `${prefix} 0f 2d`, `Gy,${w}`, F.toInteger(format, false));
}
sse("cvtps2pd", "np 0f 5a", "Vx,Wq", F.widen("ps"));
sse("cvtpd2ps", "66 0f 5a", "Vx,Wx", F.narrow("pd"));
sse("cvtss2sd", "f3 0f 5a", "Vx,Wd", F.widen("ss"));
sse("cvtsd2ss", "f2 0f 5a", "Vx,Wq", F.narrow("sd"));
sse("cvtdq2ps", "np 0f 5b", "Vx,Wx", F.convertDwordsPs);
sse("cvtps2dq", "66 0f 5b", "Vx,Wx", F.toDwords("ps", false));
sse("cvttps2dq", "f3 0f 5b", "Vx,Wx", F.toDwords("ps", true));
sse("cvttpd2dq", "66 0f e6", "Vx,Wx", F.toDwords("pd", true));
sse("cvtdq2pd", "f3 0f e6", "Vx,Wq", F.convertDwordsPd);
sse("cvtpd2dq", "f2 0f e6", "Vx,Wx", F.toDwords("pd", false));

// logic
for (const [name, code] of [
  ["and", 0x54],
  ["andn", 0x55],
  ["or", 0x56],
  ["xor", 0x57],
] as const) {
  const define = binary(V.logicOps[name]!);
  sse(`${name}ps`, `np 0f ${hex(code)}`, "Vx,Wx", define, `p${name}`);
  sse(`${name}pd`, `66 0f ${hex(code)}`, "Vx,Wx", define, `p${name}`);
}

// shuffles
for (const [prefix, d, size] of [
  ["np", "ps", 4],
  ["66", "pd", 8],
] as const) {
  sse(`unpckl${d}`, `${prefix} 0f 14`, "Vx,Wx", binary(V.unpackLow(size)), `unpackLow${size}`);
  sse(`unpckh${d}`, `${prefix} 0f 15`, "Vx,Wx", binary(V.unpackHigh(size)), `unpackHigh${size}`);
}
sse("shufps", "np 0f c6", "Vx,Wx,Ib", V.shufps);
sse("shufpd", "66 0f c6", "Vx,Wx,Ib", V.shufpd);
sse("pshufd", "66 0f 70", "Vx,Wx,Ib", V.pshufd);
sse("pshufhw", "f3 0f 70", "Vx,Wx,Ib", V.pshufhw);
sse("pshuflw", "f2 0f 70", "Vx,Wx,Ib", V.pshuflw);
[
  ["bw", 0x60, 1],
  ["wd", 0x61, 2],
  ["dq", 0x62, 4],
].forEach(([d, code, size]) => {
  const n = size as number;
  sse(`punpckl${d}`, `66 0f ${hex(code as number)}`, "Vx,Wx", binary(V.unpackLow(n)), `unpackLow${n}`);
  sse(`punpckh${d}`, `66 0f ${hex((code as number) + 8)}`, "Vx,Wx", binary(V.unpackHigh(n)), `unpackHigh${n}`);
  // the memory operand of the low forms is 32 bits: the upper half of the source takes no part
  mmx(`punpckl${d}`, `np 0f ${hex(code as number)} mod3`, "Pq,Qq", mm(V.unpackLow(n)));
  mmx(`punpckl${d}`, `np 0f ${hex(code as number)} mem`, "Pq,Md", V.mmLow32(V.unpackLow(n)));
  mmx(`punpckh${d}`, `np 0f ${hex((code as number) + 8)}`, "Pq,Qq", mm(V.unpackHighMm(n)));
});
sse("punpcklqdq", "66 0f 6c", "Vx,Wx", binary(V.unpackLow(8)), "unpackLow8");
sse("punpckhqdq", "66 0f 6d", "Vx,Wx", binary(V.unpackHigh(8)), "unpackHigh8");
for (const [name, code, simd] of [
  ["packsswb", 0x63, Simd.narrow16S],
  ["packuswb", 0x67, Simd.narrow16U],
  ["packssdw", 0x6b, Simd.narrow32S],
] as const) {
  sse(name, `66 0f ${hex(code)}`, "Vx,Wx", binary(op(simd)));
  mmx(name, `np 0f ${hex(code)}`, "Pq,Qq", mm(V.packMm(simd)));
}

const INTEGER: readonly (readonly [string, number, number | Binary])[] = [
  ["pcmpgtb", 0x64, Simd.gtS8],
  ["pcmpgtw", 0x65, Simd.gtS16],
  ["pcmpgtd", 0x66, Simd.gtS32],
  ["pcmpeqb", 0x74, Simd.eq8],
  ["pcmpeqw", 0x75, Simd.eq16],
  ["pcmpeqd", 0x76, Simd.eq32],
  ["psrlw", 0xd1, V.shift("shrU", 16)],
  ["psrld", 0xd2, V.shift("shrU", 32)],
  ["psrlq", 0xd3, V.shift("shrU", 64)],
  ["psraw", 0xe1, V.shift("shrS", 16)],
  ["psrad", 0xe2, V.shift("shrS", 32)],
  ["psllw", 0xf1, V.shift("shl", 16)],
  ["pslld", 0xf2, V.shift("shl", 32)],
  ["psllq", 0xf3, V.shift("shl", 64)],
  ["paddq", 0xd4, Simd.add64],
  ["pmullw", 0xd5, Simd.mul16],
  ["psubusb", 0xd8, Simd.subSatU8],
  ["psubusw", 0xd9, Simd.subSatU16],
  ["pminub", 0xda, Simd.minU8],
  ["pand", 0xdb, Simd.and],
  ["paddusb", 0xdc, Simd.addSatU8],
  ["paddusw", 0xdd, Simd.addSatU16],
  ["pmaxub", 0xde, Simd.maxU8],
  ["pandn", 0xdf, V.andNot],
  ["pavgb", 0xe0, Simd.avg8],
  ["pavgw", 0xe3, Simd.avg16],
  ["pmulhuw", 0xe4, V.mulHigh(Simd.mulLowU16, Simd.mulHighU16)],
  ["pmulhw", 0xe5, V.mulHigh(Simd.mulLowS16, Simd.mulHighS16)],
  ["psubsb", 0xe8, Simd.subSatS8],
  ["psubsw", 0xe9, Simd.subSatS16],
  ["pminsw", 0xea, Simd.minS16],
  ["por", 0xeb, Simd.or],
  ["paddsb", 0xec, Simd.addSatS8],
  ["paddsw", 0xed, Simd.addSatS16],
  ["pmaxsw", 0xee, Simd.maxS16],
  ["pxor", 0xef, Simd.xor],
  ["pmuludq", 0xf4, V.mulEven(Simd.mulLowU32)],
  ["pmaddwd", 0xf5, Simd.dot],
  ["psadbw", 0xf6, V.psadbw],
  ["psubb", 0xf8, Simd.sub8],
  ["psubw", 0xf9, Simd.sub16],
  ["psubd", 0xfa, Simd.sub32],
  ["psubq", 0xfb, Simd.sub64],
  ["paddb", 0xfc, Simd.add8],
  ["paddw", 0xfd, Simd.add16],
  ["paddd", 0xfe, Simd.add32],
];
for (const [name, code, f] of INTEGER) integer(name, `0f ${hex(code)}`, typeof f === "number" ? op(f) : f);
for (const [name, encoding, kind, width] of [
  ["psrlw", "71 /2", "shrU", 16],
  ["psraw", "71 /4", "shrS", 16],
  ["psllw", "71 /6", "shl", 16],
  ["psrld", "72 /2", "shrU", 32],
  ["psrad", "72 /4", "shrS", 32],
  ["pslld", "72 /6", "shl", 32],
  ["psrlq", "73 /2", "shrU", 64],
  ["psllq", "73 /6", "shl", 64],
] as const) {
  sse(name, `66 0f ${encoding} mod3`, "Wx,Ib", V.shiftImmediate(kind, width));
  mmx(name, `np 0f ${encoding} mod3`, "Qq,Ib", V.shiftImmediateMm(kind, width));
}
sse("psrldq", "66 0f 73 /3 mod3", "Wx,Ib", V.shiftBytes(false));
sse("pslldq", "66 0f 73 /7 mod3", "Wx,Ib", V.shiftBytes(true));
sse("pinsrw", "66 0f c4 mod3", "Vx,Ed,Ib", V.insert(16));
sse("pinsrw", "66 0f c4 mem", "Vx,Mw,Ib", V.insert(16));
sse("pextrw", "66 0f c5 mod3", "Gd,Wx,Ib", V.extract(16));
