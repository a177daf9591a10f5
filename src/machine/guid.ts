/** GUIDs: text in lower case in our interfaces, 16 bytes on the wire (first three fields little-endian). */

const PATTERN = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})$/;
/** Where each byte of the text form lies on the wire. */
const WIRE = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] as const;

/** @throws RangeError when it is not 8-4-4-4-12 hexadecimal digits in lower case */
export function guidBytes(text: string): Uint8Array<ArrayBuffer> {
  if (!PATTERN.test(text)) throw new RangeError(`not a GUID in lower case: ${text}`);
  const digits = text.replaceAll("-", "");
  const out = new Uint8Array(16);
  WIRE.forEach((at, i) => {
    out[at] = Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16);
  });
  return out;
}
/** The text of 16 bytes at `at`. */
export function guidText(bytes: Uint8Array, at = 0): string {
  const digits = WIRE.map((w) => bytes[at + w]!.toString(16).padStart(2, "0")).join("");
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join(
    "-",
  );
}
