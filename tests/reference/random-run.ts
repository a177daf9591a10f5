/** The random test's loop: cases made, run on both processors in batches, compared and counted. Memory does not grow with their number. */
import { readFileSync } from "node:fs";
import { Decoder, type Instruction } from "../../src/cpu/decode/decode.js";
import { disassemble } from "../../src/cpu/decode/disassemble.js";
import { caseText } from "./case-text.js";
import { type Parts, partsOf } from "./instruction-bytes.js";
import { hostVendor, openOutcome } from "./open-outcomes.js";
import { isSplitLock, NOT_ADVERTISED, NOT_NATIVE, SPLIT_LOCK } from "./random-rules.js";
import { addRandomCase } from "./random-state.js";
import {
  At,
  codeSize,
  Outcome,
  outcomeName,
  RECORD_BYTES,
  Records,
  runSandboxed,
  SKIP_NATIVE,
  USER_CODE_END,
} from "./user-case.js";
import { type Compared, userDifference } from "./user-difference.js";
import { UserMachine } from "./user-machine.js";

export interface RandomRun {
  readonly seed: number;
  /** Cases from..to - 1. */
  readonly from: number;
  readonly to: number;
  /** 32-bit code is among the cases. */
  readonly compatibility: boolean;
  /** Print state and outcomes of every case. */
  readonly show: boolean;
}
export interface Findings {
  readonly failed: number;
  /** One case of each kind of difference, the most frequent first. */
  readonly kinds: readonly string[];
  readonly outcomes: readonly (readonly [name: string, count: number])[];
  /** Cases that were not compared, by the rule's name. */
  readonly excused: readonly (readonly [name: string, count: number])[];
  /** Comparisons by the row's index. */
  readonly compared: Uint32Array;
}

const BATCH = 4096;
const INVALID = 6;
const count = (map: Map<string, number>, name: string): void => void map.set(name, (map.get(name) ?? 0) + 1);
const sorted = (map: Map<string, number>): [string, number][] => [...map].sort((a, b) => b[1] - a[1]);

/** @param progress [0] counts the cases that the engine has begun, for whoever watches */
export function runRandom(run: RandomRun, progress: Int32Array): Findings {
  const cpuinfo = readFileSync("/proc/cpuinfo", "utf8");
  const cpu = new Set(/^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.split(" "));
  const vendor = hostVendor();
  const engine = new UserMachine();
  const decoder = new Decoder();
  const outcomes = new Map<string, number>();
  const excused = new Map<string, number>();
  const bad = new Map<string, { readonly first: string; count: number }>();
  const compared = new Uint32Array(4096);
  let failed = 0;
  const records = new Records(BATCH);
  const decode = (at: number): Instruction | undefined => {
    const room = USER_CODE_END - Number(records.view.getBigUint64(at + At.rip, true));
    const code = codeSize(records.view, at);
    return decoder.decode(records.bytes, at, at + Math.min(32, room), code) === "ok" ? decoder.out : undefined;
  };
  /** Which rule lets the difference pass. */
  const ruleFor = (c: Compared, p: Parts | undefined, trap: number, ourTrap: number): string | undefined => {
    if (p !== undefined && (ourTrap === INVALID || trap === INVALID) && ourTrap !== trap) {
      const rule = NOT_ADVERTISED.find(
        (r) => r.matches(p) && (r.features.length === 0 || r.features.some((f) => cpu.has(f))),
      );
      if (rule !== undefined) return rule.name;
    }
    return openOutcome(c, trap, ourTrap, p, vendor);
  };
  for (let from = run.from; from < run.to; from += BATCH) {
    records.count = 0;
    const generators: string[] = [];
    const parts: (Parts | undefined)[] = [];
    for (let i = from; i < Math.min(run.to, from + BATCH); i++) {
      generators.push(addRandomCase(records, run.seed, i, run.compatibility));
      const at = (i - from) * RECORD_BYTES;
      const p = partsOf(records.bytes, at, codeSize(records.view, at));
      parts.push(p);
      let reason = p === undefined ? undefined : NOT_NATIVE.find((r) => r.matches(p))?.name;
      if (decode(at) !== undefined && isSplitLock(decoder.out, records.view, at)) reason = SPLIT_LOCK;
      if (reason === undefined) continue;
      count(excused, reason);
      records.view.setUint32(at + At.options, records.view.getUint32(at + At.options, true) | SKIP_NATIVE, true);
    }
    const nativeBytes = runSandboxed(records);
    const native = new DataView(nativeBytes.buffer, nativeBytes.byteOffset);
    const ours = new DataView(engine.run(records, from, progress).buffer);
    for (let i = 0; i < records.count; i++) {
      const at = i * RECORD_BYTES;
      if (run.show) console.log(caseText(records.view, native, ours, at));
      const trap = native.getInt32(at + At.trap, true);
      const ourTrap = ours.getInt32(at + At.trap, true);
      count(outcomes, outcomeName(trap));
      if (trap === Outcome.notRun) continue;
      const instruction = decode(at);
      const faultAddress = ours.getBigUint64(at + At.faultAddress, true);
      const c: Compared = { before: records.view, native, ours, at, instruction, faultAddress };
      const difference = userDifference(c);
      if (difference === "") {
        if (instruction !== undefined) compared[instruction.row.index]!++;
        continue;
      }
      const p = parts[i];
      const rule = ruleFor(c, p, trap, ourTrap);
      if (rule !== undefined) {
        count(excused, rule);
        // what AMD's do otherwise was looked at as well: some have all of an instruction's cases
        if (rule.startsWith("AMD:") && instruction !== undefined) compared[instruction.row.index]!++;
        continue;
      }
      failed++;
      const start = records.view.getBigUint64(at + At.rip, true);
      const { text } = disassemble(records.bytes.subarray(at, at + 32), codeSize(records.view, at), start);
      const hex = [...records.bytes.subarray(at, at + 16)].map((b) => b.toString(16).padStart(2, "0")).join(" ");
      const what = instruction?.row.mnemonic ?? (p === undefined ? "long" : `${p.map} ${p.opcode.toString(16)}`);
      const kind = `${what} ${difference.replace(/[0-9a-f]+[:,].*/, "")}`;
      const known = bad.get(kind);
      if (known !== undefined) known.count++;
      else if (bad.size < 1000)
        bad.set(kind, {
          count: 1,
          first: `SEED=${run.seed} CASE=${from + i} (${generators[i]}) at ${start.toString(16)}: ${hex}  ${text}: ${difference}`,
        });
    }
  }
  const kinds = [...bad.values()].sort((a, b) => b.count - a.count).map((k) => `${k.count} times: ${k.first}`);
  return { failed, kinds, outcomes: sorted(outcomes), excused: sorted(excused), compared };
}
