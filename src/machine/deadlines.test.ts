import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { DeadlineQueue } from "./deadlines.js";

function queue(ids: readonly string[]) {
  const fired: string[] = [];
  const q = new DeadlineQueue();
  for (const id of ids) q.register(id, (now) => fired.push(`${id}@${now}`));
  return { q, fired };
}

describe("deadline queue", () => {
  it("lets a device go, and another one of its name come", () => {
    const { q, fired } = queue(["a", "b"]);
    q.set("a", 10);
    assert.throws(() => q.register("a", () => {}), /registered twice/);
    q.unregister("a");
    assert.equal(q.earliest(), Number.POSITIVE_INFINITY);
    q.register("a", (now) => fired.push(`new a@${now}`));
    assert.throws(() => q.register("a", () => {}), /registered twice/);
    q.set("b", 5);
    q.set("a", 5);
    q.runDue(5);
    assert.deepEqual(fired, ["new a@5", "b@5"]);
  });
  it("fires by time, then by order of registration, once each", () => {
    const { q, fired } = queue(["a", "b", "c"]);
    q.set("c", 10);
    q.set("b", 10);
    q.set("a", 20);
    assert.equal(q.earliest(), 10);
    q.runDue(9);
    assert.deepEqual(fired, []);
    q.runDue(15);
    assert.deepEqual(fired, ["b@15", "c@15"]);
    assert.equal(q.earliest(), 20);
    q.runDue(20);
    q.runDue(30);
    assert.deepEqual(fired, ["b@15", "c@15", "a@20"]);
    assert.equal(q.earliest(), Number.POSITIVE_INFINITY);
  });

  it("moves and disarms", () => {
    const { q, fired } = queue(["a"]);
    q.set("a", 10);
    q.set("a", 30);
    q.runDue(20);
    assert.equal(q.earliest(), 30);
    q.set("a", undefined);
    q.runDue(40);
    assert.deepEqual(fired, []);
  });

  it("ends although a deadline arms itself for the past", () => {
    const q = new DeadlineQueue();
    let n = 0;
    q.register("busy", () => {
      n++;
      q.set("busy", 0);
    });
    q.set("busy", 0);
    q.runDue(100);
    assert.equal(n, 1);
    assert.equal(q.earliest(), 0);
    q.runDue(100);
    assert.equal(n, 2);
  });

  it("is strict about its own side", () => {
    const { q } = queue(["a"]);
    assert.throws(() => q.set("b", 1), /not registered/);
    assert.throws(() => q.register("a", () => {}), /twice/);
  });

  it("agrees with a sorted list, also after save and restore", () => {
    const ids = ["a", "b", "c", "d"];
    const step = fc.record({
      id: fc.constantFrom(...ids),
      when: fc.option(fc.nat(100), { nil: undefined }),
      run: fc.nat(100),
    });
    fc.assert(
      fc.property(fc.array(step), fc.nat(20), (steps, cut) => {
        let { q, fired } = queue(ids);
        const armed = new Map<string, number>();
        const expected: string[] = [];
        steps.forEach(({ id, when, run }, i) => {
          if (i === cut) {
            const state = structuredClone(q.save());
            const before = fired;
            ({ q, fired } = queue(ids));
            fired.push(...before);
            q.restore(state);
          }
          q.set(id, when);
          if (when === undefined) armed.delete(id);
          else armed.set(id, when);
          q.runDue(run);
          const due = [...armed]
            .filter(([, w]) => w <= run)
            .sort(([x, v], [y, w]) => v - w || ids.indexOf(x) - ids.indexOf(y));
          for (const [x] of due) {
            expected.push(`${x}@${run}`);
            armed.delete(x);
          }
          assert.equal(q.earliest(), Math.min(...armed.values()));
        });
        assert.deepEqual(fired, expected);
      }),
    );
  });
});
