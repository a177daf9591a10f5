/** Micro-operations that the decoder adds: no instruction of the guest, but written in the same language. */
import { Vp } from "../layout.js";
import type { FormOperand } from "./forms.js";
import { system } from "./rows-integer.js";
import type { Definition, Width } from "./sem.js";

interface Special {
  readonly name: string;
  readonly width: Width;
  readonly operands: readonly FormOperand[];
  readonly define: Definition;
}
const m: FormOperand = { kind: "m", width: 64 };
const x: FormOperand = { kind: "x", width: 64 };

export const special: readonly Special[] = [
  // the block goes on elsewhere: look RIP up again
  { name: "enlighten.redispatch", width: 64, operands: [], define: (s) => s.jumpTo(s.slotRip()) },
  // in place of an instruction, which is not done: the block was thrown away, or something may want the processor's attention
  { name: "enlighten.poisoned", width: 64, operands: [], define: (s) => s.jumpTo(s.slotRip()) },
  { name: "enlighten.attend", width: 64, operands: [], define: (s) => s.jumpTo(s.slotRip()) },
  // the way into a region; the loop writes these three itself (interpreter/generator.ts)
  { name: "enlighten.region", width: 64, operands: [], define: (s) => s.jumpTo(s.slotRip()) },
  // behind a locked instruction: a device's side must not see what comes after it before what it wrote. The host keeps stores in order,
  // and loads, but a load may pass a store
  { name: "enlighten.fence", width: 64, operands: [], define: (s) => s.fence() },
  // tempAddress = segment base (src) + effective address
  {
    name: "enlighten.address",
    width: 64,
    operands: [m],
    define: (s) => s.setSlot(Vp.tempAddress, 64, s.bin("add", s.address(0), s.fieldRegister())),
  },
  {
    name: "enlighten.addressX",
    width: 64,
    operands: [x],
    define: (s) => s.setSlot(Vp.tempAddress, 64, s.bin("add", s.address(0), s.fieldRegister())),
  },
  // the same with the effective address cut to 32 or 16 bits
  {
    name: "enlighten.address32",
    width: 64,
    operands: [x],
    define: (s) =>
      s.setSlot(Vp.tempAddress, 64, s.bin("add", s.bin("and", s.address(0), s.const64(0xffffffff)), s.fieldRegister())),
  },
  {
    name: "enlighten.address16",
    width: 64,
    operands: [x],
    define: (s) =>
      s.setSlot(Vp.tempAddress, 64, s.bin("add", s.bin("and", s.address(0), s.const64(0xffff)), s.fieldRegister())),
  },
  // an absolute 64-bit offset, in the immediate
  {
    name: "enlighten.absolute",
    width: 64,
    operands: [],
    define: (s) => s.setSlot(Vp.tempAddress, 64, s.bin("add", s.immediate(), s.fieldRegister())),
  },
  // BT with a register offset: the bit string's element; the offset's register is in src, its width in the immediate
  {
    name: "enlighten.bitAddress",
    width: 64,
    operands: [x],
    define: (s) => {
      const bits = s.immediate();
      const offset = s.fieldRegister();
      const signed = s.select(
        s.cmp("eq", bits, s.const64(16)),
        s.norm(offset, 16),
        s.select(s.cmp("eq", bits, s.const64(32)), s.norm(offset, 32), offset),
      );
      // whole elements of `bits`, as bytes: (offset >> log2(bits)) * bits / 8
      const bytes = s.bin(
        "and",
        s.bin("shr_s", signed, s.const64(3)),
        s.bin("sub", s.const64(0), s.bin("shr_u", bits, s.const64(3))),
      );
      s.setSlot(Vp.tempAddress, 64, s.bin("add", s.address(0), bytes));
    },
  },
  { name: "system", width: 64, operands: [], define: system },
];
