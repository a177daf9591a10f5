/** Our machine against QEMU: what user space cannot run. Where QEMU is wrong, the manual decides, and the case says so. */
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { assemble } from "../bare/nasm.js";
import { Flag } from "./case.js";
import { CASES } from "./cases.js";
import { Place } from "./layout.js";
import { imageSource } from "./monitor.js";
import { expected, type Outcome, outcomes, pushesResumeFlag } from "./outcome.js";
import { runHere, runInQemu } from "./run.js";

let image: Uint8Array = new Uint8Array();
let qemu = new Map<string, Outcome>();
before(() => {
  assert.equal(new Set(CASES.map((c) => c.name)).size, CASES.length, "two cases have one name");
  image = assemble(imageSource(CASES), 32, Place.image).bytes;
  qemu = outcomes(CASES, runInQemu(image));
});

for (const regions of [false, true]) {
  describe(regions ? "with regions" : "in the interpreter", () => {
    let here = new Map<string, Outcome>();
    before(() => {
      here = outcomes(CASES, runHere(image, regions));
    });
    for (const c of CASES) {
      test(c.name, () => {
        const theirs = qemu.get(c.name);
        const ours = here.get(c.name);
        assert.ok(theirs !== undefined && ours !== undefined);
        assert.deepEqual(ours, expected(c, theirs), c.manual?.why);
      });
    }
  });
}

describe("where QEMU differs from the manual, it still does", () => {
  for (const c of CASES) {
    if (c.manual === undefined) continue;
    test(c.name, () => {
      const theirs = qemu.get(c.name) ?? {};
      for (const [name, value] of Object.entries(c.manual!.fields))
        assert.notEqual(theirs[name] ?? "", value, `QEMU's ${name} is the manual's now: it need not be named`);
    });
  }
  test("RF of a fault's frame", () => {
    for (const [name, o] of qemu)
      if (pushesResumeFlag(o) && CASES.find((c) => c.name === name)!.rflags === undefined)
        assert.equal(Number.parseInt(o.fl!, 16) & Flag.RF, 0, name);
  });
});
