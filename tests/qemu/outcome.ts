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
    for (const field of Object.keys(outcome))
      if (c.open?.some((o) => o === field || (o.length === 1 && field.startsWith(o) && field.length > 2)) === true)
        delete outcome[field];
    result.set(name, outcome);
  }
  return result;
}

/** #DE BR UD NM TS NP SS GP PF MF AC XM CP: faults; #DB is one for instruction breakpoints, whose RF is as it was. */
const FAULTS = new Set(["0", "5", "6", "7", "a", "b", "c", "d", "e", "10", "11", "13", "15"]);
/** SDM vol. 3, "Instruction-Breakpoint Exception Condition": for a fault, the RF that is pushed is 1. QEMU pushes what was there. */
export function pushesResumeFlag(o: Outcome): boolean {
  return FAULTS.has(o.v ?? "");
}
/** SDM vol. 3, "Interrupt 14 - Page-Fault Exception": with RSVD, P is 1, as the entry is present. QEMU leaves P clear. */
export function isReservedBitFault(o: Outcome): boolean {
  return o.v === "e" && o.e !== undefined && (Number.parseInt(o.e, 16) & 8) !== 0;
}
/** What ours has to be by QEMU's and the manual's word: fields and values, "" = not there. */
export function expected(c: Case, qemu: Outcome): Outcome {
  const { fields = {} } = c.manual ?? {};
  if (fields.v !== undefined) return fields;
  const result: Record<string, string> = { ...qemu, ...fields };
  if (pushesResumeFlag(qemu) && c.software !== true)
    result.fl = (Number.parseInt(qemu.fl ?? "0", 16) | Flag.RF).toString(16);
  if (fields.e === undefined && isReservedBitFault(qemu)) result.e = (Number.parseInt(qemu.e!, 16) | 1).toString(16);
  return result;
}
/** Ours as far as it is looked at, in the same shape. */
export function compared(c: Case, ours: Outcome): Outcome {
  const { fields = {} } = c.manual ?? {};
  const named = Object.fromEntries(Object.keys(fields).map((name) => [name, ours[name] ?? ""]));
  return fields.v !== undefined ? named : { ...ours, ...named };
}
