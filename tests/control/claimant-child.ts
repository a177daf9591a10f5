/** Takes a name again and again, in a race with others: registry.test.ts. Arguments: folder, name, rounds. */
import { closeSync, openSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Registry } from "../../src/host/node/control/registry.js";
import { VmError } from "../../src/vm/vm-error.js";

const [folder = "", name = "", rounds = ""] = process.argv.slice(2);
const registry = new Registry(folder);
const holder = join(folder, "holder");
let won = 0;
let overlaps = 0;
for (let i = 0; i < Number(rounds); i++) {
  try {
    const claim = registry.claim(name, { guest: "none", memoryMiB: 1, detached: false });
    won++;
    try {
      closeSync(openSync(holder, "wx"));
      rmSync(holder);
    } catch {
      overlaps++;
    }
    // one in three dies without a word, as far as the others can see: its entry is stale, and all of them clean it
    if (i % 3 === 0) claim.giveTo(2 ** 22 + 1);
    else claim.release("done");
  } catch (error) {
    if (!(error instanceof VmError && error.code === "name-taken")) throw error;
  }
  registry.list();
}
process.stdout.write(`${JSON.stringify({ won, overlaps })}\n`);
