import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import { civil, epochSeconds, newCivilTime } from "./calendar.js";

it("agrees with Date over ten thousand years, both ways", () => {
  const seconds = fc.oneof(
    fc.integer({ min: -62_167_219_200, max: 253_402_300_799 }),
    fc.constantFrom(0, -1, 951_782_400, 951_868_799, 951_868_800, 4_107_542_399, 4_107_542_400, 2 ** 31, 2 ** 32),
  );
  fc.assert(
    fc.property(seconds, (at) => {
      const t = newCivilTime();
      civil(at, t);
      const d = new Date(at * 1000);
      assert.deepEqual(
        [t.year, t.month, t.day, t.hour, t.minute, t.second, t.weekday],
        [
          d.getUTCFullYear(),
          d.getUTCMonth() + 1,
          d.getUTCDate(),
          d.getUTCHours(),
          d.getUTCMinutes(),
          d.getUTCSeconds(),
          d.getUTCDay() + 1,
        ],
      );
      assert.equal(epochSeconds(t), at);
    }),
    { numRuns: 2000 },
  );
});
