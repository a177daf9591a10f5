import assert from "node:assert/strict";
import { it } from "node:test";
import { GuestViolation, invariant } from "./guest-violation.js";

it("says where, which rule, and the value in hex", () => {
  assert.equal(new GuestViolation("synic/vp0", "reserved bits", 0x1f).message, "synic/vp0: reserved bits (got 0x1f)");
  assert.equal(new GuestViolation("vmbus", "too short").message, "vmbus: too short");
});

it("an invariant stops with its message", () => {
  invariant(true, "fine");
  assert.throws(() => invariant(false, "broken thing"), /invariant broken: broken thing/);
});
