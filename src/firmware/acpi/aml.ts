/**
 * Builds AML, the byte code of ACPI definition blocks (ACPI specification, "ACPI Machine Language (AML) Specification"
 * and "Resource Data Types for ACPI"). Every function returns encoded bytes; containers take encoded bytes.
 * Only what a static description of a machine needs: there is no control flow beyond `Return`.
 */

type Aml = Uint8Array;

const Op = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE: 0x0a,
  WORD: 0x0b,
  DWORD: 0x0c,
  STRING: 0x0d,
  QWORD: 0x0e,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  METHOD: 0x14,
  DUAL_NAME: 0x2e,
  MULTI_NAME: 0x2f,
  EXTENDED: 0x5b,
  DEVICE: 0x82,
  RETURN: 0xa4,
} as const;

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const ascii = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0));
const u8s = (...values: readonly number[]): Aml => Uint8Array.from(values);

/** Little-endian bytes of a non-negative integer below 2^53. */
function little(value: number, bytes: number): number[] {
  const out: number[] = [];
  let rest = value;
  for (let i = 0; i < bytes; i++) {
    out.push(rest % 0x100);
    rest = Math.floor(rest / 0x100);
  }
  return out;
}

// --- Objects -------------------------------------------------------------------------------------------------------

/** A name path: segments of up to four characters separated by dots, from the root with a leading backslash. */
export function path(text: string): Aml {
  const rooted = text.startsWith("\\");
  const body = rooted ? text.slice(1) : text;
  const segments = body === "" ? [] : body.split(".");
  for (const s of segments) if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(s)) throw new Error(`not an AML name: ${text}`);
  const names = segments.flatMap((s) => ascii(s.padEnd(4, "_")));
  const prefix =
    segments.length === 0
      ? [0]
      : segments.length === 1
        ? []
        : segments.length === 2
          ? [Op.DUAL_NAME]
          : [Op.MULTI_NAME, segments.length];
  return u8s(...(rooted ? [0x5c] : []), ...prefix, ...names);
}

/** A non-negative integer below 2^53, in its shortest form. */
export function integer(value: number): Aml {
  if (value === 0) return u8s(Op.ZERO);
  if (value === 1) return u8s(Op.ONE);
  if (value < 0x100) return u8s(Op.BYTE, value);
  if (value < 0x1_0000) return u8s(Op.WORD, ...little(value, 2));
  if (value < 0x1_0000_0000) return u8s(Op.DWORD, ...little(value, 4));
  return u8s(Op.QWORD, ...little(value, 8));
}

export function string(text: string): Aml {
  return u8s(Op.STRING, ...ascii(text), 0);
}

/** A compressed plug-and-play id such as PNP0501, as the integer it stands for ("EISAID"). */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new Error(`not an EISA id: ${id}`);
  const [a, b, c] = ascii(id.slice(0, 3)).map((x) => x - 0x40) as [number, number, number];
  const product = Number.parseInt(id.slice(3), 16);
  const bigEndian = [(a << 2) | (b >> 3), ((b & 7) << 5) | c, product >> 8, product & 0xff];
  return u8s(Op.DWORD, ...bigEndian);
}

export function buffer(bytes: Uint8Array): Aml {
  return sized(u8s(Op.BUFFER), concat(integer(bytes.length), bytes));
}

export function pack(...elements: readonly Aml[]): Aml {
  return sized(u8s(Op.PACKAGE), concat(u8s(elements.length), ...elements));
}

export function name(at: string, value: Aml): Aml {
  return concat(u8s(Op.NAME), path(at), value);
}

export function scope(at: string, ...terms: readonly Aml[]): Aml {
  return sized(u8s(Op.SCOPE), concat(path(at), ...terms));
}

export function device(at: string, ...terms: readonly Aml[]): Aml {
  return sized(u8s(Op.EXTENDED, Op.DEVICE), concat(path(at), ...terms));
}

/** @param args number of arguments, 0..7 */
export function method(at: string, args: number, ...terms: readonly Aml[]): Aml {
  return sized(u8s(Op.METHOD), concat(path(at), u8s(args), ...terms));
}

export function ret(value: Aml): Aml {
  return concat(u8s(Op.RETURN), value);
}

/** Opcode, PkgLength, body. The length counts itself; its first byte says how many more follow ("Package Length Encoding"). */
function sized(opcode: Aml, body: Aml): Aml {
  for (let extra = 0; extra <= 3; extra++) {
    const length = body.length + 1 + extra;
    if (extra === 0) {
      if (length < 0x40) return concat(opcode, u8s(length), body);
    } else if (length < 1 << (4 + 8 * extra)) {
      return concat(opcode, u8s((extra << 6) | (length & 0xf), ...little(length >>> 4, extra)), body);
    }
  }
  throw new Error("AML object of 256 MiB or more");
}

// --- Resource templates --------------------------------------------------------------------------------------------

/** A `_CRS` value: descriptors and the end tag (its checksum 0 means "not computed"). */
export function resources(...descriptors: readonly Aml[]): Aml {
  return buffer(concat(...descriptors, u8s(0x79, 0)));
}

/** Fixed I/O ports, decoded on 16 address lines. */
export function io(base: number, count: number): Aml {
  return u8s(0x47, 1, ...little(base, 2), ...little(base, 2), 1, count);
}

/** An ISA interrupt 0..15: edge-triggered, active high, exclusive ("IRQ Descriptor" without flags). */
export function irq(line: number): Aml {
  return u8s(0x22, ...little(1 << line, 2));
}

/** A global system interrupt: consumer, active high, exclusive ("Extended Interrupt Descriptor"). */
export function interrupt(gsi: number, trigger: "edge" | "level"): Aml {
  return u8s(0x89, ...little(6, 2), trigger === "edge" ? 0x03 : 0x01, 1, ...little(gsi, 4));
}

/** Fixed memory below 4 GiB. */
export function memory32Fixed(base: number, lengthBytes: number, writable: boolean): Aml {
  return u8s(0x86, ...little(9, 2), writable ? 1 : 0, ...little(base, 4), ...little(lengthBytes, 4));
}

/** Both ends fixed, positive decode, the device passes it on to its children. */
const PRODUCER_FIXED = 0x0c;

/** A memory window for children: not cacheable, read and write. */
export function qwordMemory(base: number, lengthBytes: number): Aml {
  const range = [0, base, base + lengthBytes - 1, 0, lengthBytes].flatMap((v) => little(v, 8));
  return u8s(0x8a, ...little(0x2b, 2), 0, PRODUCER_FIXED, 1, ...range);
}

/** A range of bus numbers for children. */
export function wordBusNumber(first: number, count: number): Aml {
  const range = [0, first, first + count - 1, 0, count].flatMap((v) => little(v, 2));
  return u8s(0x88, ...little(0x0d, 2), 2, PRODUCER_FIXED, 0, ...range);
}
