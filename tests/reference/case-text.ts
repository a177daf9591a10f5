/** The state of a case of the random test, and both outcomes, as text. */
import { At, outcomeName, WINDOW, WINDOW_BYTES } from "./user-case.js";

const REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");
const hex = (x: bigint | number, digits = 0): string => x.toString(16).padStart(digits, "0");

function outcome(view: DataView, at: number): string[] {
  const word = (name: string, offset: number): string => `${name} ${hex(view.getUint16(at + offset, true))}`;
  return [
    `${outcomeName(view.getInt32(at + At.trap, true))}, error ${hex(view.getBigUint64(at + At.error, true))}, CR2 ${hex(view.getBigUint64(at + At.faultAddress, true))}`,
    ...state(view, at),
    `${word("cs", At.cs)} ${word("ss", At.ss)} ${word("ds", At.ds)} ${word("es", At.es)} ${word("fs", At.fs)} ${word("gs", At.gs)}`,
  ];
}
function state(view: DataView, at: number): string[] {
  const big = (offset: number): string => hex(view.getBigUint64(at + offset, true));
  const lines = [`rip ${big(At.rip)} flags ${big(At.rflags)} fs ${big(At.fsBase)} gs ${big(At.gsBase)}`];
  for (let i = 0; i < 16; i += 4)
    lines.push(
      REGISTERS.slice(i, i + 4)
        .map((n, k) => `${n} ${big(At.gpr + (i + k) * 8)}`)
        .join("  "),
    );
  const half = (offset: number): string => hex(view.getUint16(at + offset, true));
  lines.push(`fcw ${half(At.fcw)} fsw ${half(At.fsw)} ftw ${hex(view.getUint8(at + At.ftw))} mxcsr ${half(At.mxcsr)}`);
  for (let i = 0; i < 8; i++) lines.push(`st${i} ${half(At.st + i * 16 + 8)}:${big(At.st + i * 16)}`);
  for (let i = 0; i < 16; i++) lines.push(`xmm${i} ${big(At.xmm + i * 16 + 8)} ${big(At.xmm + i * 16)}`);
  return lines;
}
export function caseText(before: DataView, native: DataView, ours: DataView, at: number): string {
  const lines = ["before:", ...state(before, at)];
  for (let i = 0; i < WINDOW_BYTES; i += 32) {
    const words = [0, 8, 16, 24].map((k) => hex(before.getBigUint64(at + At.window + i + k, true), 16));
    lines.push(`${hex(WINDOW + i)}: ${words.join(" ")}`);
  }
  return [...lines, "native:", ...outcome(native, at), "ours:", ...outcome(ours, at)].join("\n");
}
