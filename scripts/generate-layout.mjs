// Writes the constants of src/cpu/layout.ts and of the procedure numbers as AssemblyScript, so that both languages have one source.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const root = join(import.meta.dirname, "..");
const out = process.argv[2] ?? join(root, "dist");
const url = (p) => pathToFileURL(join(out, p)).href;
const layout = await import(url("src/cpu/layout.js"));
const { System, StringOp } = await import(url("src/cpu/isa/rows-integer.js"));
const vectorCodes = await import(url("src/cpu/isa/vector-codes.js"));
const { ProcedureFlag } = await import(url("src/cpu/decode/block-builder.js"));
const lines = ["// Generated from src/cpu/layout.ts by scripts/generate-layout.mjs. Do not edit."];
const groups = { ...layout, System, StringOp, ProcedureFlag, ...vectorCodes };
for (const [name, value] of Object.entries(groups)) {
  if (typeof value === "number") lines.push(`export const ${name}: i32 = ${value};`);
  else if (value !== null && typeof value === "object")
    for (const [k, v] of Object.entries(value))
      if (typeof v === "number") lines.push(`export const ${name}_${k}: i32 = ${v};`);
}
writeFileSync(join(root, "src/cpu/runtime/assembly/layout.ts"), `${lines.join("\n")}\n`);
