/** That the image itself works: each level, and an exception of each kind of frame. */
import { atLevels, type Case } from "./case.js";

export const BASIC: readonly Case[] = [
  ...atLevels(["k64", "u64", "k32", "u32", "k16", "u16"], { name: "stop", code: "stop" }),
  ...atLevels(["k64", "u64", "k32", "u32"], { name: "ud2", code: "ud2" }),
  ...atLevels(["k64", "u64", "k32", "u32"], { name: "divide", code: "xor ecx, ecx\ndiv ecx" }),
  ...atLevels(["k64", "u64", "k32", "u32"], { name: "int3", code: "int3" }),
  ...atLevels(["k64", "u64", "k32", "u32"], { name: "hole", code: "mov eax, [abs HOLE]" }),
  ...atLevels(["k64", "u64", "k32", "u32"], { name: "write", code: "mov [abs DATA + 8], eax\nstop" }),
];
