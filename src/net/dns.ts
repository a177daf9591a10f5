/**
 * Messages of the domain name system, as far as a relay looks into them: RFC 1035 "Messages". Names are lower-case texts without
 * the last dot; bytes that are no printable ASCII, and dots and backslashes within a label, are written `\ddd`.
 */
import type { IpAddress } from "./address.js";

/** Bytes of the header. */
export const DNS_HEADER = 12;
/** Types of records. Open: a query may have any. */
export const DnsType = { A: 1, CNAME: 5, PTR: 12, AAAA: 28, OPT: 41, ANY: 255 } as const;
/** Response codes. */
export const DnsCode = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const;

/** What a query asks; only the first question counts, as there is never another. */
export interface DnsQuestion {
  readonly id: number;
  readonly isQuery: boolean;
  readonly opcode: number;
  readonly recursionDesired: boolean;
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Where the question ends in the message. */
  readonly end: number;
}

/** An address that an answer gives, or an alias. */
export interface DnsRecord {
  readonly name: string;
  readonly type: number;
  /** In seconds. */
  readonly ttl: number;
  readonly address?: IpAddress;
  /** Of an alias. */
  readonly target?: string;
}

/** @returns undefined if it is not a message with a question */
export function parseQuestion(message: Uint8Array): DnsQuestion | undefined {
  if (message.length < DNS_HEADER) return undefined;
  const view = viewOf(message);
  const flags = view.getUint16(2);
  if (view.getUint16(4) !== 1) return undefined;
  const name = readName(message, DNS_HEADER);
  if (name === undefined || name.end + 4 > message.length) return undefined;
  return {
    id: view.getUint16(0),
    isQuery: (flags & 0x8000) === 0,
    opcode: (flags >> 11) & 15,
    recursionDesired: (flags & 0x100) !== 0,
    name: name.text,
    type: view.getUint16(name.end),
    class: view.getUint16(name.end + 2),
    end: name.end + 4,
  };
}

/** Addresses and aliases in the answer section, as many as are well-formed. */
export function parseAnswers(message: Uint8Array): DnsRecord[] {
  const out: DnsRecord[] = [];
  const question = parseQuestion(message);
  if (question === undefined) return out;
  const view = viewOf(message);
  let at = question.end;
  for (let n = view.getUint16(6); n > 0 && out.length < 256; n--) {
    const name = readName(message, at);
    if (name === undefined || name.end + 10 > message.length) return out;
    const type = view.getUint16(name.end);
    const ttl = view.getUint32(name.end + 4);
    const length = view.getUint16(name.end + 8);
    const from = name.end + 10;
    at = from + length;
    if (at > message.length) return out;
    if ((type === DnsType.A && length === 4) || (type === DnsType.AAAA && length === 16))
      out.push({ name: name.text, type, ttl, address: message.slice(from, at) });
    else if (type === DnsType.CNAME) {
      const target = readName(message, from);
      if (target !== undefined) out.push({ name: name.text, type, ttl, target: target.text });
    }
  }
  return out;
}

/** A name with its compression undone: RFC 1035 "Message compression". Pointers may only go back, so they end. */
export function readName(message: Uint8Array, from: number): { text: string; end: number } | undefined {
  let text = "";
  let at = from;
  let end = -1;
  let bound = from;
  let bytes = 0;
  for (;;) {
    const length = message[at];
    if (length === undefined) return undefined;
    if (length === 0) return { text, end: end < 0 ? at + 1 : end };
    if (length >= 0xc0) {
      const low = message[at + 1];
      if (low === undefined) return undefined;
      const target = ((length & 0x3f) << 8) | low;
      if (target >= bound) return undefined;
      if (end < 0) end = at + 2;
      bound = target;
      at = target;
      continue;
    }
    bytes += length + 1;
    if (length > 63 || bytes > 254 || at + 1 + length > message.length) return undefined;
    if (text !== "") text += ".";
    for (let i = at + 1; i <= at + length; i++) text += letter(message[i]!);
    at += 1 + length;
  }
}

function letter(byte: number): string {
  if (byte <= 0x20 || byte >= 0x7f || byte === 0x2e || byte === 0x5c) return `\\${byte.toString().padStart(3, "0")}`;
  return String.fromCharCode(byte).toLowerCase();
}

/** A name as labels. @returns undefined if it is too long; escapes are not undone */
export function encodeName(name: string): Uint8Array | undefined {
  const out: number[] = [];
  for (const label of name === "" ? [] : name.split(".")) {
    if (label.length === 0 || label.length > 63) return undefined;
    out.push(label.length, ...Array.from(label, (c) => c.charCodeAt(0) & 0x7f));
  }
  out.push(0);
  return out.length > 255 ? undefined : Uint8Array.from(out);
}

/** A query for the addresses of a name. */
export function encodeQuery(id: number, name: string, type: number): Uint8Array {
  const encoded = encodeName(name) ?? Uint8Array.of(0);
  const out = new Uint8Array(DNS_HEADER + encoded.length + 4);
  const view = viewOf(out);
  view.setUint16(0, id);
  view.setUint16(2, 0x100);
  view.setUint16(4, 1);
  out.set(encoded, DNS_HEADER);
  view.setUint16(DNS_HEADER + encoded.length, type);
  view.setUint16(DNS_HEADER + encoded.length + 2, 1);
  return out;
}

/**
 * Answers a query with our own word.
 *
 * @param records data of records of the question's name and type
 */
export function encodeAnswer(
  query: Uint8Array,
  question: DnsQuestion,
  code: number,
  records: readonly Uint8Array[],
  ttl: number,
): Uint8Array {
  const body = records.reduce((n, r) => n + 12 + r.length, 0);
  const out = new Uint8Array(question.end + body);
  out.set(query.subarray(0, question.end));
  const view = viewOf(out);
  view.setUint16(2, 0x8080 | (question.opcode << 11) | (question.recursionDesired ? 0x100 : 0) | code);
  view.setUint16(6, records.length);
  view.setUint32(8, 0);
  let at = question.end;
  for (const record of records) {
    view.setUint16(at, 0xc000 | DNS_HEADER);
    view.setUint16(at + 2, question.type);
    view.setUint16(at + 4, 1);
    view.setUint32(at + 6, ttl);
    view.setUint16(at + 10, record.length);
    out.set(record, at + 12);
    at += 12 + record.length;
  }
  return out;
}

/** The name that a reverse lookup of an address asks for: RFC 1035 "IN-ADDR.ARPA domain", RFC 3596 "IP6.ARPA Domain". */
export function reverseName(address: IpAddress): string {
  if (address.length === 4) return `${Array.from(address).reverse().join(".")}.in-addr.arpa`;
  const nibbles = Array.from(address).flatMap((b) => [b >> 4, b & 15]);
  return `${nibbles
    .reverse()
    .map((n) => n.toString(16))
    .join(".")}.ip6.arpa`;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
