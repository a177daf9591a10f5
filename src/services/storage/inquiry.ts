/**
 * INQUIRY: what stands at a LUN (SPC-4, "INQUIRY command", "Vital product data parameters"; SBC-3, "VPD pages"). The vendor is
 * "Msft": both guests' drivers recognise their host by it.
 */
import type { StorageRequest } from "./request.js";
import { be16, putBe16, putBe32, putBe64, Sense } from "./scsi.js";

export const DeviceType = { disk: 0x00, dvd: 0x05 } as const;
/** Qualifier 3, type 1F: there is no device here. Linux finds phantom disks where the first byte is anything else. */
const ABSENT = 0x7f;

const VENDOR = "Msft    ";
const NAA_PREFIX = [0x60, 0x02, 0x24, 0x80];

/** Bytes that name a disk for ever. */
export const IDENTITY_BYTES = 12;

export interface InquiryFacts {
  readonly type: number;
  readonly removable: boolean;
  /** Up to 16 characters. */
  readonly product: string;
  readonly identity: Uint8Array;
  /** Absent for devices that are not block devices in the sense of SBC. */
  readonly blocks?: {
    readonly logicalBlockBytes: number;
    readonly physicalBlockBytes: number;
    readonly canDiscard: boolean;
    readonly discardGranularity: number;
    readonly maxWriteSameBlocks: number;
  };
}

/** SPC-4, "Standard INQUIRY data": 36 bytes. */
function standardInquiry(facts: InquiryFacts): Uint8Array {
  const data = new Uint8Array(36);
  data[0] = facts.type;
  data[1] = facts.removable ? 0x80 : 0;
  data[2] = 5; // SPC-3
  data[3] = 2; // response data format
  data[4] = data.length - 5;
  data[7] = 0x02; // command queueing
  putText(data, 8, VENDOR, 8);
  putText(data, 16, facts.product, 16);
  putText(data, 32, "1.0", 4);
  return data;
}

/** Answers INQUIRY; without facts, for a LUN where there is nothing. */
export function inquiry(request: StorageRequest, facts: InquiryFacts | undefined): void {
  const cdb = request.cdb;
  const vital = (cdb[1]! & 0x01) !== 0;
  const page = cdb[2]!;
  // CMDDT is obsolete; a page code without EVPD means nothing.
  if ((cdb[1]! & 0x02) !== 0 || (!vital && page !== 0)) {
    request.check(Sense.invalidFieldInCdb);
    return;
  }
  let data: Uint8Array | undefined;
  if (facts === undefined) data = vital ? Uint8Array.of(ABSENT, page, 0, 0) : absentInquiry();
  else data = vital ? vitalProductData(facts, page) : standardInquiry(facts);
  if (data === undefined) request.check(Sense.invalidFieldInCdb);
  else request.goodWithData(data, be16(cdb, 3));
}

function absentInquiry(): Uint8Array {
  const data = new Uint8Array(36);
  data[0] = ABSENT;
  data[2] = 5;
  data[3] = 2;
  data[4] = data.length - 5;
  return data;
}

/** A vital product data page; undefined when there is none of this number. */
function vitalProductData(facts: InquiryFacts, page: number): Uint8Array | undefined {
  const pages = pagesOf(facts);
  if (!pages.includes(page)) return undefined;
  const body = bodyOf(facts, page, pages);
  const data = new Uint8Array(4 + body.length);
  data[0] = facts.type;
  data[1] = page;
  putBe16(data, 2, body.length);
  data.set(body, 4);
  return data;
}

/** In ascending order, as page 00 must list them. Linux never asks for others. */
function pagesOf(facts: InquiryFacts): number[] {
  if (facts.blocks === undefined) return [0x00, 0x80, 0x83];
  const pages = [0x00, 0x80, 0x83, 0xb0, 0xb1];
  if (facts.blocks.canDiscard) pages.push(0xb2);
  return pages;
}

function bodyOf(facts: InquiryFacts, page: number, pages: readonly number[]): Uint8Array {
  switch (page) {
    case 0x00:
      return Uint8Array.from(pages);
    case 0x80:
      return ascii(serialNumber(facts.identity));
    case 0x83:
      return identification(facts.identity);
    case 0xb0:
      return blockLimits(facts.blocks!);
    case 0xb1: {
      const body = new Uint8Array(0x3c);
      putBe16(body, 0, 1); // medium rotation rate: does not rotate
      return body;
    }
    default:
      // B2, "Logical Block Provisioning": no threshold; UNMAP, WRITE SAME(16) and (10) give space back, reads are zero after;
      // thin provisioned.
      return Uint8Array.of(0, 0x80 | 0x40 | 0x20 | 0x04, 2, 0);
  }
}

/** Unit serial number: the identity in hexadecimal. */
export function serialNumber(identity: Uint8Array): string {
  return [...identity].map((b) => b.toString(16).padStart(2, "0")).join("");
}

/** SPC-4, "Device Identification VPD page": a T10 vendor identification and an NAA of our own, both for the logical unit. */
function identification(identity: Uint8Array): Uint8Array {
  const t10 = ascii(VENDOR + serialNumber(identity));
  const naa = [...NAA_PREFIX, ...identity];
  return Uint8Array.of(
    ...[0x02, 0x01, 0x00, t10.length, ...t10], // ASCII
    ...[0x01, 0x03, 0x00, naa.length, ...naa], // binary
  );
}

/** SBC-3, "Block Limits VPD page". */
function blockLimits(blocks: NonNullable<InquiryFacts["blocks"]>): Uint8Array {
  const page = new Uint8Array(0x40);
  page[4] = 1; // WSNZ: WRITE SAME of 0 blocks does not mean "to the end"
  putBe16(page, 6, blocks.physicalBlockBytes / blocks.logicalBlockBytes);
  if (blocks.canDiscard) {
    putBe32(page, 20, 0xffff_ffff); // blocks of an UNMAP
    putBe32(page, 24, MAX_UNMAP_DESCRIPTORS);
    putBe32(page, 28, blocks.discardGranularity / blocks.logicalBlockBytes);
    putBe32(page, 32, 0x8000_0000); // UGAVALID, alignment 0
  }
  putBe64(page, 36, blocks.maxWriteSameBlocks);
  return page.subarray(4);
}

/** What a parameter list of 65,535 bytes can hold. */
export const MAX_UNMAP_DESCRIPTORS = 4095;

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}
function putText(into: Uint8Array, at: number, text: string, length: number): void {
  into.set(ascii(text.padEnd(length)), at);
}
