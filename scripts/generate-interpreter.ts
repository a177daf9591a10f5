/** Build step: the interpreter of processor 0 as a Wasm module. */
import { writeFileSync } from "node:fs";
import { generateInterpreter } from "../src/cpu/interpreter/generator.js";
import { FIRST_BLOCK } from "../src/cpu/layout.js";

writeFileSync(process.argv[2]!, generateInterpreter(FIRST_BLOCK, true).bytes);
