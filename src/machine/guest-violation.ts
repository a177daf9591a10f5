/**
 * Whose fault is it: the guest's (recorded, never fatal) or ours (the VM stops with a report).
 * User mistakes have errors of their own, with a code and a hint, where they are found.
 */

/** The guest broke a protocol. Recorded with its source, never fatal to the host. */
export class GuestViolation extends Error {
  override readonly name = "GuestViolation";

  /**
   * @param source where: "storvsp#2", "synic/vp0"
   * @param rule   what was broken, with its citation: "page count exceeds range (VMBus GPADL_HEADER)"
   * @param value  the raw value that broke it
   */
  constructor(source: string, rule: string, value?: number | bigint) {
    super(`${source}: ${rule}${value === undefined ? "" : ` (got 0x${value.toString(16)})`}`);
  }
}

/** Our own bug. Stops the VM with a report; never caught to carry on. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`invariant broken: ${message}`);
}
