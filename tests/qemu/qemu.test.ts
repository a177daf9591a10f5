/** Our machine against QEMU: what user space cannot run. Where QEMU is wrong, the manual decides, and the case says so. */
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { assemble } from "../bare/nasm.js";
import { CASES } from "./cases.js";
import { Place } from "./layout.js";
import { forQemu, imageSource } from "./monitor.js";
import { compared, expected, type Outcome, outcomes, RULES } from "./outcome.js";
import { runHere, runInQemu } from "./run.js";

let image: Uint8Array = new Uint8Array();
let qemu = new Map<string, Outcome>();
before(() => {
  assert.equal(new Set(CASES.map((c) => c.name)).size, CASES.length, "two cases have one name");
  image = assemble(imageSource(CASES), 32, Place.image).bytes;
  qemu = outcomes(CASES, runInQemu(forQemu(image)));
});

for (const regions of [false, true]) {
  describe(regions ? "with regions" : "in the interpreter", () => {
    let here = new Map<string, Outcome>();
    before(() => {
      here = outcomes(CASES, runHere(image, regions));
    });
    for (const c of CASES) {
      test(c.name, () => {
        const ours = here.get(c.name);
        assert.ok(ours !== undefined);
        // what does not come back from QEMU has the manual's fields alone
        const theirs = c.manual?.notInQemu === true ? ours : qemu.get(c.name);
        assert.ok(theirs !== undefined);
        assert.deepEqual(compared(c, ours), expected(c, theirs), c.manual?.why);
      });
    }
  });
}

describe("where QEMU differs from the manual, it still does", () => {
  for (const c of CASES) {
    if (c.manual === undefined || c.manual.notInQemu === true) continue;
    test(c.name, () => {
      const theirs = qemu.get(c.name) ?? {};
      const { fields } = c.manual!;
      const same = Object.entries(fields).filter(([name, value]) => (theirs[name] ?? "") === value);
      assert.ok(same.length < Object.keys(fields).length, "QEMU does what the manual says: the note may go");
    });
  }
  for (const rule of RULES)
    test(rule.name, () => {
      const shown = CASES.filter((c) => qemu.has(c.name) && rule.applies(qemu.get(c.name)!, c));
      assert.ok(shown.length > 0, "QEMU does what the manual says: the rule may go");
    });
});
