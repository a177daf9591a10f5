import assert from "node:assert/strict";
import { it } from "node:test";
import { FunctionBuilder, ModuleBuilder } from "./assembler.js";

/** Twice: if x > 0, x and what `put` puts are added up. A hint stands before the first gap, and one before the second. */
function sample(put: (f: FunctionBuilder, add: (to: FunctionBuilder) => void) => void): FunctionBuilder {
  const f = new FunctionBuilder(["i32"], ["i32"]);
  const sum = f.local("i32");
  const add = (to: FunctionBuilder): void => {
    to.get(sum);
    to.i32(1000);
    to.op("i32_add");
    to.set(sum);
  };
  for (let i = 0; i < 2; i++) {
    f.get(0);
    f.likely();
    f.if();
    put(f, add);
    f.end();
    put(f, add);
    f.get(sum);
    f.unlikely();
    f.if();
    f.end();
  }
  f.get(sum);
  return f;
}

it("fills gaps with code that is known in the end, and moves the hints behind them", () => {
  const expected = sample((f, add) => add(f));
  const filled = sample((f, add) => f.later(add));
  assert.notDeepEqual(filled.code.take(), expected.code.take());
  filled.fillGaps();
  assert.deepEqual(filled.code.take(), expected.code.take());
  assert.deepEqual(filled.hints, expected.hints);
  filled.fillGaps();
  assert.deepEqual(filled.finish(), expected.finish());
});
it("gives the module's own functions their indices when all imports are known", () => {
  const m = new ModuleBuilder({ minimum: 1, maximum: 1, shared: false });
  const f = new FunctionBuilder([], ["i32"]);
  f.call(m.importFunction({ module: "a", name: "one", params: [], results: ["i32"] }));
  assert.equal(m.add(f, "f"), 0);
  const g = new FunctionBuilder([], ["i32"]);
  g.call(m.importFunction({ module: "a", name: "two", params: [], results: ["i32"] }));
  assert.equal(m.add(g, "g"), 1);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(m.finish()), {
    a: { one: () => 1, two: () => 2 },
    env: { memory: new WebAssembly.Memory({ initial: 1, maximum: 1, shared: false }) },
  }) as { exports: Record<string, () => number> };
  assert.deepEqual([exports.f!(), exports.g!()], [1, 2]);
});
