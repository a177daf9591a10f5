/** Every row of the instruction table is tested, or it is explained where: the table that `npm run coverage:isa` prints. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { forms } from "../../src/cpu/isa/forms.js";
import { rows } from "../../src/cpu/isa/table.js";
import { coverageOf, coverageTable, nameOf, WITHOUT_HARDWARE, wordOf } from "./isa-coverage.js";

forms();
test("every row of the instruction table has its test", (t) => {
  for (const line of coverageTable(rows)) t.diagnostic(line);
  const open = rows.filter((row) => coverageOf(row) === undefined);
  assert.deepEqual(
    open.map((r) => `${r.mnemonic} ${r.map} ${r.opcode.toString(16)} /${r.reg} ${r.operands.join()}`),
    [],
  );
});

test("the tests that are named for an instruction run it", () => {
  const names = new Set(rows.map(nameOf));
  for (const { file, names: claimed } of WITHOUT_HARDWARE) {
    const path = [join(import.meta.dirname, "../../../tests", file), join(import.meta.dirname, "..", file)].find(
      existsSync,
    );
    const text = readFileSync(path!, "utf8");
    for (const name of claimed) {
      assert.ok(names.has(name), `${name} is no instruction`);
      assert.match(text, new RegExp(`(\\b|\\\\n)${wordOf(name)}`, "i"), `${file}: ${name}`);
    }
  }
});
