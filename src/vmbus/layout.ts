/**
 * Wire structures with a stated offset for each field, as the tables of a specification have them. For control messages, which
 * are few; rings and packets use offsets directly.
 */
import { guidBytes, guidText } from "../machine/guid.js";

/** One little-endian field. What lies between fields is reserved: written as 0, not read. */
export interface Field<T> {
  readonly at: number;
  readonly size: number;
  get(view: DataView): T;
  set(view: DataView, value: T): void;
}
// biome-ignore lint/suspicious/noExplicitAny: the type of each field is found by inference
export type Fields = Readonly<Record<string, Field<any>>>;
export type Values<F extends Fields> = { -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

export const u8 = (at: number): Field<number> => ({
  at,
  size: 1,
  get: (v) => v.getUint8(at),
  set: (v, x) => v.setUint8(at, x),
});
export const u16 = (at: number): Field<number> => ({
  at,
  size: 2,
  get: (v) => v.getUint16(at, true),
  set: (v, x) => v.setUint16(at, x, true),
});
export const u32 = (at: number): Field<number> => ({
  at,
  size: 4,
  get: (v) => v.getUint32(at, true),
  set: (v, x) => v.setUint32(at, x, true),
});
/** 64 bits as a double: an address or a page number, exact below 2^53. */
export const u64 = (at: number): Field<number> => ({
  at,
  size: 8,
  get: (v) => v.getUint32(at, true) + v.getUint32(at + 4, true) * 0x1_0000_0000,
  set: (v, x) => {
    v.setUint32(at, x >>> 0, true);
    v.setUint32(at + 4, Math.floor(x / 0x1_0000_0000), true);
  },
});
export const guid = (at: number): Field<string> => ({
  at,
  size: 16,
  get: (v) => guidText(new Uint8Array(v.buffer, v.byteOffset + at, 16)),
  set: (v, x) => new Uint8Array(v.buffer, v.byteOffset + at, 16).set(guidBytes(x)),
});
/** So many bytes; shorter values are filled with 0. Reading gives a copy. */
export const bytes = (at: number, size: number): Field<Uint8Array> => ({
  at,
  size,
  get: (v) => new Uint8Array(v.buffer, v.byteOffset + at, size).slice(),
  set: (v, x) => {
    if (x.length > size) throw new RangeError(`${x.length} bytes for a field of ${size}`);
    new Uint8Array(v.buffer, v.byteOffset + at, size).fill(0).set(x);
  },
});

/** @throws RangeError when fields overlap or reach beyond `size`: a mistake in our own tables */
export function checkFields(what: string, size: number, first: number, fields: Fields): void {
  let end = first;
  for (const [name, field] of Object.entries(fields)) {
    if (field.at < end || field.at + field.size > size) throw new RangeError(`${what}: field ${name} is misplaced`);
    end = field.at + field.size;
  }
}
