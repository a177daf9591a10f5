/** Shapes against values that anybody may have written. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { isVerb, VERBS, type VerbName } from "./catalogue.js";
import { flag, list, number, oneOf, optional, record, type Shape, ShapeError, table, text, whole } from "./shape.js";

const person = record({ name: text, age: whole(0, 150), nick: optional(text) });

describe("shapes", () => {
  it("give back what is in order, without what nobody asked for", () => {
    assert.deepEqual(person({ name: "a", age: 3, more: true }, ""), { name: "a", age: 3 });
    assert.deepEqual(person({ name: "a", age: 3, nick: "b" }, ""), { name: "a", age: 3, nick: "b" });
    assert.deepEqual(table(list(number))({ x: [1, 2.5] }, ""), { x: [1, 2.5] });
    assert.equal(oneOf("a", "b")("b", ""), "b");
  });

  it("say where a value is wrong", () => {
    const wrong = (shape: Shape<unknown>, value: unknown, message: RegExp): void =>
      assert.throws(
        () => shape(value, ""),
        (e: unknown) => e instanceof ShapeError && message.test(e.message),
      );
    wrong(person, { name: "a", age: 151 }, /^age is not a whole number from 0 to 150$/);
    wrong(person, { name: "a", age: 1.5 }, /^age/);
    wrong(person, { age: 1 }, /^name is not a text$/);
    wrong(person, { name: "a", age: 1, nick: null }, /^nick/);
    wrong(person, [], /^it is not an object$/);
    wrong(person, null, /^it is not an object$/);
    wrong(list(person), [{ name: "a", age: 1 }, 5], /^\[1\]/);
    wrong(list(flag, 2), [true, true, true], /at most 2/);
    wrong(number, Number.NaN, /number/);
    wrong(oneOf("a"), "c", /one of a/);
    wrong(text, "x".repeat(1 << 20), /text/);
  });

  it("take no field from a prototype, and make none", () => {
    assert.throws(() => record({ constructor: text })({}, ""), ShapeError);
    const odd = table(text)(JSON.parse('{"__proto__": "x"}'), "");
    assert.deepEqual(Object.keys(odd), ["__proto__"]);
    assert.equal(Object.getPrototypeOf(odd), Object.prototype);
    assert.equal(isVerb("constructor"), false);
  });

  it("throw nothing but a ShapeError, whatever the JSON", () => {
    const names = Object.keys(VERBS) as VerbName[];
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(...names), (value, name) => {
        const { request, answer, toServer, toClient } = VERBS[name];
        for (const shape of [request, answer, toServer, toClient] as readonly Shape<unknown>[]) {
          try {
            shape(value, "");
          } catch (error) {
            assert.ok(error instanceof ShapeError, String(error));
          }
        }
      }),
    );
  });
});
