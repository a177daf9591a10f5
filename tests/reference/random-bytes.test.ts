/**
 * Random bytes as instructions in user mode, one at a time, against the processor of this machine. The engine never traps in
 * WebAssembly, never hangs, and comes to the same outcome. ENLIGHTEN_LONG=1 makes the long run, SEED another one, CASES one of
 * another length, CASE=n repeats one case and shows its state.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Decoder, type Instruction } from "../../src/cpu/decode/decode.js";
import { disassemble } from "../../src/cpu/decode/disassemble.js";
import { caseText } from "./case-text.js";
import { type Parts, partsOf } from "./instruction-bytes.js";
import { openOutcome } from "./open-outcomes.js";
import { isSplitLock, NOT_ADVERTISED, NOT_NATIVE, SPLIT_LOCK } from "./random-rules.js";
import { addRandomCase } from "./random-state.js";
import {
  At,
  Outcome,
  outcomeName,
  RECORD_BYTES,
  Records,
  runSandboxed,
  SKIP_NATIVE,
  sandboxedProgram,
  USER_CODE_END,
} from "./user-case.js";
import { type Compared, userDifference } from "./user-difference.js";
import { UserMachine } from "./user-machine.js";

const LONG = process.env.ENLIGHTEN_LONG === "1";
const CASES = Number(process.env.CASES ?? (LONG ? 1e7 : 1e5));
const SEED = Number(process.env.SEED ?? 1);
const ONE = process.env.CASE === undefined ? undefined : Number(process.env.CASE);
const SHOW = Number(process.env.SHOW ?? 30);
const BATCH = 4096;
const INVALID = 6;

class Counters {
  readonly map = new Map<string, number>();
  add(name: string): void {
    this.map.set(name, (this.map.get(name) ?? 0) + 1);
  }
}

test("random bytes do what this machine's processor does with them", {
  skip: sandboxedProgram() === undefined ? "no gcc, or no x86-64" : false,
}, (t) => {
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  const cpu = new Set(/^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.split(" "));
  const vendor = /^vendor_id\s*: (.*)$/m.exec(cpuinfo)?.[1] ?? "";
  const engine = new UserMachine();
  const decoder = new Decoder();
  const outcomes = new Counters();
  const excused = new Counters();
  const bad = new Map<string, { first: string; count: number }>();
  let failed = 0;
  const records = new Records(BATCH);
  const generators: string[] = [];
  const decode = (at: number): Instruction | undefined => {
    const room = USER_CODE_END - Number(records.view.getBigUint64(at + At.rip, true));
    return decoder.decode(records.bytes, at, at + Math.min(32, room), 64) === "ok" ? decoder.out : undefined;
  };
  const first = ONE ?? 0;
  const end = ONE === undefined ? CASES : ONE + 1;
  for (let from = first; from < end; from += BATCH) {
    records.count = 0;
    generators.length = 0;
    const parts: (Parts | undefined)[] = [];
    for (let i = from; i < Math.min(end, from + BATCH); i++) {
      generators.push(addRandomCase(records, SEED, i));
      const at = (i - from) * RECORD_BYTES;
      const p = partsOf(records.bytes, at);
      parts.push(p);
      let reason = p === undefined ? undefined : NOT_NATIVE.find((r) => r.matches(p))?.name;
      if (decode(at) !== undefined && isSplitLock(decoder.out, records.view, at)) reason = SPLIT_LOCK;
      if (reason === undefined) continue;
      excused.add(reason);
      records.view.setUint32(at + At.options, SKIP_NATIVE, true);
    }
    const nativeBytes = runSandboxed(records);
    const native = new DataView(nativeBytes.buffer, nativeBytes.byteOffset);
    const oursBytes = engine.run(records);
    const ours = new DataView(oursBytes.buffer);
    for (let i = 0; i < records.count; i++) {
      const at = i * RECORD_BYTES;
      if (ONE !== undefined) console.log(caseText(records.view, native, ours, at));
      const trap = native.getInt32(at + At.trap, true);
      const ourTrap = ours.getInt32(at + At.trap, true);
      outcomes.add(outcomeName(trap));
      if (trap === Outcome.notRun) continue;
      const start = Number(records.view.getBigUint64(at + At.rip, true));
      const instruction = decode(at);
      const p = parts[i];
      if (p !== undefined && (ourTrap === INVALID || trap === INVALID) && ourTrap !== trap) {
        const rule = NOT_ADVERTISED.find(
          (r) => r.matches(p) && (r.features.length === 0 || r.features.some((f) => cpu.has(f))),
        );
        if (rule !== undefined) {
          excused.add(rule.name);
          continue;
        }
      }
      const c: Compared = {
        before: records.view,
        native,
        ours,
        at,
        instruction,
        faultAddress: ours.getBigUint64(at + At.faultAddress, true),
      };
      const d = userDifference(c);
      if (d === "") continue;
      const open = openOutcome(c, trap, ourTrap, p, vendor);
      if (open !== undefined) {
        excused.add(open);
        continue;
      }
      failed++;
      const code = records.bytes.subarray(at, at + 16);
      const { text } = disassemble(records.bytes.subarray(at, at + 32), 64, BigInt(start));
      const bytes = [...code].map((b) => b.toString(16).padStart(2, "0")).join(" ");
      const key = `${instruction?.row.mnemonic ?? (p === undefined ? "?" : `${p.map} ${p.opcode.toString(16)}`)} ${d.replace(/[0-9a-f]+[:,].*/, "")}`;
      const entry = bad.get(key);
      if (entry !== undefined) entry.count++;
      else
        bad.set(key, {
          count: 1,
          first: `CASE=${from + i} (${generators[i]}) at ${start.toString(16)}: ${bytes}  ${text}: ${d}`,
        });
    }
  }
  t.diagnostic(`cases ${end - first}, seed ${SEED}; different ${failed} in ${bad.size} kinds`);
  for (const [name, n] of [...outcomes.map].sort((a, b) => b[1] - a[1])) t.diagnostic(`${n} ${name}`);
  for (const [name, n] of [...excused.map].sort((a, b) => b[1] - a[1])) t.diagnostic(`${n} not compared: ${name}`);
  const lines = [...bad.values()].sort((a, b) => b.count - a.count).slice(0, SHOW);
  assert.equal(failed, 0, `\n${lines.map((l) => `${l.count}x ${l.first}`).join("\n")}\n`);
});
