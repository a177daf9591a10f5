/**
 * Instructions that take every way through decoder and block builder. They are run once before the first guest code: V8 optimizes
 * these functions early in a boot, throws the result away at the first way that it has not seen taken, and does so again and
 * again (a third of what decoding took in a boot).
 */
import { ModeKey } from "../layout.js";

export interface Rehearsed {
  readonly code: 16 | 32 | 64;
  /** ModeKey bits. */
  readonly mode: number;
  /** Instructions, in hexadecimal; those in one line are in one block. */
  readonly lines: readonly string[];
}

const FLAT64 = ModeKey.code64 | ModeKey.flat;
const FLAT32 = ModeKey.code32 | ModeKey.flat | ModeKey.stack32;

export const REHEARSAL: readonly Rehearsed[] = [
  {
    code: 64,
    mode: FLAT64,
    lines: [
      // one-byte opcodes, jumps, fused and not
      "90 f390 4190 4889e5 31c0 01c8 83c001 81c001000000 4883c008 48ffc0 c3",
      "4839c8 7400",
      "85c0 7500",
      "83f805 0f8700000000",
      "4883f900 7c00",
      "84c0 7400",
      "e800000000",
      "eb00",
      "e900000000",
      "ffd0",
      "ff20",
      "c20800",
      // memory: base, index, displacement, RIP, absolute, segments, 32-bit addresses
      "488b4508 488b00 8b04b500000000 8b042500000000 488b0500000000 8b448804 8b84c800010000 488d4508 488d0cc0",
      "65488b042500000000 65488b0500000000 65488b448804 65488b00 64488b042528000000 67488b4508 67658b4508",
      "48a11122334455667788 a01122334455667788 678b04c0 67a111223344 2e8b00 2e8907",
      // immediates and widths
      "48b81122334455667788 b811223344 66b81234 b001 88c4 8ac5 c6450801 c7450801000000 66c745081234 48c7450801000000",
      "0fb6c0 0fb64508 0fbfc0 480fbec0 4863c8 660fb6c0 0fb6442408 408af4 418af4",
      "c1e000 c1e003 d1e0 d3e0 48c1f83f 486bc003 4869c011223344 480fafc1 48f7f1 f7e1 f7d8 f6d0",
      "50 58 4154 415c 8f442408 8f00 ff742408 6a01 6811223344 c9 9c 9d",
      "f00fb11f f0480fc111 f00fba6d0803 8710 480fa31f 0fbae003 480fbd c1",
      "0f94c0 0f44c1 480f4d4508 0fc8 f30fb8c1 660f38f1c0 0f38f000 f2480f38f1c1",
      // state
      "0f1007 f30f6f07 660f6fc1 f20f58c1 660fefc0 660f3800c1 660f3a0fc108 f3480f2ac0 f20f1107 66480f6ec0 0f5900 0fc6c11b",
      "0f6fc1 0f6f07 0f77 d9c0 d807 dd07 dfe0 dbe3 9b",
      "c4e278f2c1 c4e278f207 c4e2f9f7c1 c5f877",
      "0fae00 0fae5008 0fc70f f00fc70f 0faef0 0f1f4000 0f0d08",
      // procedures
      "fa fb 0f01f8 0f20c0 0f22c0 0f21c0 0fa2 0f31 f4 0f01d0 0f0139 0f3800c1",
      "f3a4 f348a5 f3aa 65a4 67a4 f3a6 f2ae c8080000 e460 ec ef cd80 cc 8cd8 8ed8 0f05 480f07 48cf 0f32 0f30",
      // what is none
      "0f0b",
      "06",
      "62",
      "f00fb6c0",
      "f048890424 f04889c0",
      "0fff00",
      "c4e0780000",
      "66666666666666666666666666666666",
      // what goes on past the bytes there are
      ...["48", "0f", "0f38", "8b", "8b04", "8b44", "8b05", "8b4424", "c5", "c4e2", "b811", "66b8", "48a1", "c80000"],
    ],
  },
  {
    code: 32,
    mode: FLAT32,
    lines: [
      "55 89e5 8b4508 a111223344 8b0411 668b07 678b4704 678b00 648b00 2e8907 8b0511223344 50 5d 60 61",
      "e900000000",
      "66e90000",
      "667400",
      "ff20",
      "ff10",
      "9a112233440800",
      "ea112233440800",
      "c407 62 07",
      "0f20c0 40 48 cf",
    ],
  },
  {
    code: 16,
    mode: ModeKey.code16 | ModeKey.real,
    lines: [
      "8b4702 8b063412 668b07 678b00 678b4408 b83412 50 58 2e8b00 cd10 f3a4",
      "e90000",
      "ff27",
      "ff17",
      "7400",
      "ea00000000",
    ],
  },
  // state that is switched off
  { code: 64, mode: FLAT64 | ModeKey.noFpu, lines: ["0f1007", "d9c0"] },
  { code: 64, mode: FLAT64 | ModeKey.emulate, lines: ["0f1007", "d9c0", "0f6fc1"] },
];
