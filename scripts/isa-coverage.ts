/** Prints how many rows of the instruction table are tested, and how: npm run coverage:isa */
import { forms } from "../src/cpu/isa/forms.js";
import { rows } from "../src/cpu/isa/table.js";
import { coverageOf, coverageTable } from "../tests/reference/isa-coverage.js";

forms();
for (const line of coverageTable(rows)) console.log(line);
const open = rows.filter((row) => coverageOf(row) === undefined);
for (const row of open) console.log(`no test: ${row.mnemonic} ${row.operands.join()}`);
process.exitCode = open.length === 0 ? 0 : 1;
