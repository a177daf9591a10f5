/** The image's lines as fields, and what a case has to come to by QEMU's and the manual's word. */
import { type Case, Flag } from "./case.js";

export type Outcome = Readonly<Record<string, string>>;

/** Lines by name; the flags that are undefined are taken out. */
export function outcomes(cases: readonly Case[], text: string): Map<string, Outcome> {
  const result = new Map<string, Outcome>();
  const byName = new Map(cases.map((c) => [c.name, c]));
  for (const line of text.split("\n")) {
    const [name = "", ...fields] = line.trim().split(" ");
    const c = byName.get(name);
    if (c === undefined) continue;
    const outcome: Record<string, string> = Object.fromEntries(fields.map((f) => f.split("=") as [string, string]));
    const undefinedFlags = c.undefinedFlags ?? 0;
    for (const field of ["fl", "hf"])
      outcome[field] = (Number.parseInt(outcome[field] ?? "0", 16) & ~undefinedFlags).toString(16);
    for (const field of Object.keys(outcome)) {
      if (c.open?.includes(field) === true) outcome[field] = "open";
      else if (field.length > 2 && c.open?.includes(field[0]!) === true) delete outcome[field];
    }
    result.set(name, outcome);
  }
  return result;
}

/**
 * What QEMU 7.2 does otherwise whatever the case. Each is asserted to be so still (`qemu.test.ts`), and turned into the manual's:
 * `applies` says whether the outcome shows it, `right` gives the fields as they should be.
 */
export const RULES: readonly {
  readonly name: string;
  readonly applies: (o: Outcome, c: Case) => boolean;
  readonly right: (o: Outcome) => Outcome;
}[] = [
  {
    name: 'SDM vol. 3, "Instruction-Breakpoint Exception Condition": RF in the frame of a fault is 1',
    applies: (o, c) => isFault(o) && (bits(o.fl) & Flag.RF) === 0 && c.software !== true,
    right: (o) => ({ fl: hex(bits(o.fl) | Flag.RF) }),
  },
  {
    name: 'SDM vol. 3, "Instruction-Breakpoint Exception Condition": RF is 0 after the instruction that it was for',
    applies: (o) => o.v === "80" && (bits(o.fl) & Flag.RF) !== 0,
    right: (o) => ({ fl: hex(bits(o.fl) & ~Flag.RF) }),
  },
  {
    name: 'SDM vol. 3, "Interrupt 14 - Page-Fault Exception": where RSVD is 1, so is P',
    applies: (o) => o.v === "e" && o.e !== "open" && (bits(o.e) & 9) === 8,
    right: (o) => ({ e: hex(bits(o.e) | 1) }),
  },
  {
    name: 'SDM vol. 3, "Error Code": of a gate, bits 15:3 are its number, of 16 bytes or not',
    applies: (o) => (o.v === "d" || o.v === "b") && (bits(o.e) & 2) !== 0,
    right: (o) => ({ e: hex((bits(o.e) >> 4) * 8 + (bits(o.e) & 7)) }),
  },
  {
    name: 'SDM vol. 2, "INT n", INTRA-PRIVILEGE-LEVEL-INTERRUPT: without a change of the level SS is not loaded, IST or not',
    applies: (o) => ((bits(o.cs) ^ bits(o.hc)) & 3) === 0 && o.hd !== o.ss,
    right: (o) => ({ hd: o.ss ?? "" }),
  },
];
const bits = (field: string | undefined): number => Number.parseInt(field ?? "0", 16);
const hex = (n: number): string => (n >>> 0).toString(16);
/** Of TS NP SS GP PF AC there are error codes; without one, it was INT n. #DB is a fault only for instruction breakpoints, RF stays. */
const WITH_ERROR = new Set(["a", "b", "c", "d", "e", "11"]);
const WITHOUT_ERROR = new Set(["0", "5", "6", "7", "10", "13"]);
const isFault = (o: Outcome): boolean => (o.e === undefined ? WITHOUT_ERROR.has(o.v ?? "") : WITH_ERROR.has(o.v ?? ""));

/** What ours has to be by QEMU's and the manual's word: fields and values, "" = not there. */
export function expected(c: Case, qemu: Outcome): Outcome {
  const { fields = {} } = c.manual ?? {};
  if (fields.v !== undefined) return fields;
  let result = qemu;
  for (const rule of RULES) if (rule.applies(qemu, c)) result = { ...result, ...rule.right(qemu) };
  return { ...result, ...fields };
}
/** Ours as far as it is looked at, in the same shape. */
export function compared(c: Case, ours: Outcome): Outcome {
  const { fields = {} } = c.manual ?? {};
  const named = Object.fromEntries(Object.keys(fields).map((name) => [name, ours[name] ?? ""]));
  return fields.v !== undefined ? named : { ...ours, ...named };
}
