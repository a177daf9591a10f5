/** MODE SENSE and MODE SELECT, 6 and 10 (SPC-4, "Mode parameters"): header, no block descriptor, pages. */
import type { StorageRequest } from "./request.js";
import { be16, Opcode, putBe16, Sense } from "./scsi.js";

/** A page as it stands, and which of its bits a guest may change. Both with page code and length. */
export interface ModePage {
  readonly current: Uint8Array;
  readonly changeable: Uint8Array;
}

/** Page code that asks for all pages. */
const ALL_PAGES = 0x3f;
const ALL_SUBPAGES = 0xff;
const PageControl = { current: 0, changeable: 1, default: 2, saved: 3 } as const;

/**
 * Answers MODE SENSE.
 * @param deviceSpecific the header's device-specific parameter
 * @param current, defaults in ascending order of page codes
 */
export function modeSense(
  request: StorageRequest,
  deviceSpecific: number,
  pages: readonly ModePage[],
  defaults: readonly ModePage[],
): void {
  const cdb = request.cdb;
  const ten = cdb[0] === Opcode.modeSense10;
  const control = cdb[2]! >>> 6;
  const code = cdb[2]! & 0x3f;
  const subpage = cdb[3]!;
  if (control === PageControl.saved) {
    request.check(Sense.savingNotSupported);
    return;
  }
  // Of all our pages there is only subpage 0.
  const known = subpage === 0 || subpage === ALL_SUBPAGES;
  const asked = (control === PageControl.default ? defaults : pages).filter(
    (p) => known && (code === ALL_PAGES || (p.current[0]! & 0x3f) === code),
  );
  if (asked.length === 0) {
    request.check(Sense.invalidFieldInCdb);
    return;
  }
  const header = ten ? 8 : 4;
  const bodies = asked.map((p) => (control === PageControl.changeable ? p.changeable : p.current));
  const data = new Uint8Array(bodies.reduce((n, b) => n + b.length, header));
  if (ten) {
    putBe16(data, 0, data.length - 2);
    data[3] = deviceSpecific;
  } else {
    data[0] = data.length - 1;
    data[2] = deviceSpecific;
  }
  let at = header;
  for (const body of bodies) {
    data.set(body, at);
    at += body.length;
  }
  request.goodWithData(data, ten ? be16(cdb, 7) : cdb[4]!);
}

/**
 * Takes a MODE SELECT's list, checks all of it, then applies it.
 * @param apply gets each page of the list
 * @returns sense value of what is wrong with it; 0 when it was applied
 */
export function modeSelect(
  cdb: Uint8Array,
  list: Uint8Array,
  pages: readonly ModePage[],
  apply: (page: Uint8Array) => void,
): number {
  const ten = cdb[0] === Opcode.modeSelect10;
  if ((cdb[1]! & 0x01) !== 0) return Sense.invalidFieldInCdb; // SP: nothing is saved
  if (list.length === 0) return Sense.none;
  const header = ten ? 8 : 4;
  if (list.length < header) return Sense.parameterListLength;
  let at = header + (ten ? be16(list, 6) : list[3]!);
  if (at > list.length) return Sense.parameterListLength;
  const found: Uint8Array[] = [];
  while (at < list.length) {
    const length = 2 + (list[at + 1] ?? 0);
    const page = pages.find((p) => (p.current[0]! & 0x7f) === (list[at]! & 0x7f));
    if (page === undefined) return Sense.invalidFieldInParameters;
    if (length !== page.current.length) return Sense.invalidFieldInParameters;
    if (at + length > list.length) return Sense.parameterListLength;
    const wanted = list.subarray(at, at + length);
    for (let i = 2; i < length; i++)
      if (((wanted[i]! ^ page.current[i]!) & ~page.changeable[i]!) !== 0) return Sense.invalidFieldInParameters;
    found.push(wanted);
    at += length;
  }
  for (const page of found) apply(page);
  return Sense.none;
}

/** Length of the parameter list that a MODE SELECT announces. */
export function modeListLength(cdb: Uint8Array): number {
  return cdb[0] === Opcode.modeSelect10 ? be16(cdb, 7) : cdb[4]!;
}
