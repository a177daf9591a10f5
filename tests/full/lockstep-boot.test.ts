/**
 * A boot of debian:12 in both tiers side by side, plain and with regions under stress: equal registers after every slice, equal RAM
 * at intervals.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/lockstep-boot.test.js
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { enlighten } from "../guests/guests.js";

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";
const LOCKSTEP = ["run", "debian:12", "--lockstep", "--memory", "256M"];
/** Integers, strings, floating point, processes, faults. */
const COMMAND =
  "md5sum /bin/busybox; awk 'BEGIN { for (i = 1; i < 20000; i++) s += 10 / (3 * i); print s }'; for i in 1 2 3; do ls / | sort -r; done";

for (const stress of ["", "eager=2003", "eager=2003,invalidate,flush,tiny", "eager=5003,turbofan"])
  test(stress === "" ? "plain" : stress, { skip, timeout: 7_200_000 }, async () => {
    const r = await enlighten([...LOCKSTEP, "--exec", COMMAND], { env: { ENLIGHTEN_STRESS: stress } });
    assert.equal(r.code, 0, r.stderr.slice(-20_000));
    assert.match(r.stdout.toString(), /34\.93/);
  });
