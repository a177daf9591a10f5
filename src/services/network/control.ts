/** RNDIS control: a request of the guest's, and the answer to it. */

import { readU32, writeU32 } from "../../vmbus/byte-order.js";
import { type OidContext, query, set } from "./oids.js";
import {
  COMPLETE,
  HEADER_BYTES,
  IndicateStatus,
  InitializeComplete,
  InitializeRequest,
  MAX_PACKETS_PER_MESSAGE,
  MAX_TRANSFER_BYTES,
  OFFSET_BASE,
  PACKET_ALIGNMENT_FACTOR,
  QUERY_DATA_OFFSET,
  QueryComplete,
  REQUEST_BYTES,
  Request,
  ResetComplete,
  RndisStatus,
  RndisType,
  StatusComplete,
} from "./rndis.js";

/** Bytes of an answer at most. */
export const MAX_ANSWER_BYTES = 1024;
/** Type, length, request id. */
const MIN_REQUEST_BYTES = 12;
const NOTHING = new Uint8Array(0);
/** Connectionless. */
const DEVICE_FLAGS = 1;

/**
 * Does what a message asks.
 * @param message all that the guest sent: at least the message's own length is checked here
 * @returns the answer, which may be none; or a text that says which rule was broken, and there is no answer
 */
export function control(message: Uint8Array, c: OidContext): Uint8Array | string | undefined {
  if (message.length < MIN_REQUEST_BYTES) return `RNDIS message of ${message.length} bytes`;
  const type = readU32(message, 0);
  const length = readU32(message, 4);
  if (length < MIN_REQUEST_BYTES || length > message.length) return `RNDIS message says ${length} bytes`;
  const bytes = message.subarray(0, length);
  const requestId = readU32(bytes, HEADER_BYTES);
  switch (type) {
    case RndisType.initialize:
      return initialize(bytes, requestId, c);
    case RndisType.halt:
      c.session.halt();
      return undefined;
    case RndisType.query:
      return answerQuery(bytes, requestId, c);
    case RndisType.set:
      return answerSet(bytes, requestId, c);
    case RndisType.reset:
      return reset(c);
    case RndisType.keepalive:
      return status(RndisType.keepalive, requestId, RndisStatus.success);
    default:
      return `RNDIS message of type ${type}`;
  }
}

function initialize(bytes: Uint8Array, requestId: number, c: OidContext): Uint8Array | string {
  if (bytes.length < InitializeRequest.size) return `RNDIS INITIALIZE of ${bytes.length} bytes`;
  const isKnown = InitializeRequest.read(bytes).major === 1;
  if (isKnown) {
    c.session.halt();
    c.session.initialized = true;
    c.session.toldLink = c.link;
  }
  const out = new Uint8Array(InitializeComplete.size);
  InitializeComplete.write(out, 0, {
    type: (RndisType.initialize | COMPLETE) >>> 0,
    length: out.length,
    requestId,
    status: isKnown ? RndisStatus.success : RndisStatus.notSupported,
    major: 1,
    minor: 0,
    deviceFlags: DEVICE_FLAGS,
    medium: 0,
    maxPacketsPerMessage: MAX_PACKETS_PER_MESSAGE,
    maxTransferBytes: MAX_TRANSFER_BYTES,
    packetAlignmentFactor: PACKET_ALIGNMENT_FACTOR,
    afListOffset: 0,
    afListSize: 0,
  });
  return out;
}
/** The information of a request; undefined when it is not in the message. An offset without a length means nothing (FreeBSD). */
function informationOf(bytes: Uint8Array): Uint8Array | undefined {
  const { informationLength, informationOffset } = Request.read(bytes);
  if (informationLength === 0) return NOTHING;
  const at = OFFSET_BASE + informationOffset;
  if (informationOffset < REQUEST_BYTES - OFFSET_BASE || at + informationLength > bytes.length) return undefined;
  return bytes.subarray(at, at + informationLength);
}
function answerQuery(bytes: Uint8Array, requestId: number, c: OidContext): Uint8Array | string {
  if (bytes.length < REQUEST_BYTES) return `RNDIS QUERY of ${bytes.length} bytes`;
  const { oid } = Request.read(bytes);
  const information = informationOf(bytes);
  let result = RndisStatus.success as number;
  let data: Uint8Array = NOTHING;
  if (!c.session.initialized) result = RndisStatus.failure;
  else if (information === undefined) result = RndisStatus.invalidData;
  else {
    const found = query(oid, c, information);
    if (found === undefined) result = RndisStatus.notSupported;
    else data = found;
  }
  const out = new Uint8Array(QueryComplete.size + data.length);
  QueryComplete.write(out, 0, {
    type: (RndisType.query | COMPLETE) >>> 0,
    length: out.length,
    requestId,
    status: result,
    informationLength: data.length,
    informationOffset: QUERY_DATA_OFFSET,
  });
  out.set(data, QueryComplete.size);
  return out;
}
function answerSet(bytes: Uint8Array, requestId: number, c: OidContext): Uint8Array | string {
  if (bytes.length < REQUEST_BYTES) return `RNDIS SET of ${bytes.length} bytes`;
  const information = informationOf(bytes);
  if (!c.session.initialized) return status(RndisType.set, requestId, RndisStatus.failure);
  if (information === undefined) return status(RndisType.set, requestId, RndisStatus.invalidData);
  return status(RndisType.set, requestId, set(Request.read(bytes).oid, c, information));
}
function status(type: number, requestId: number, result: number): Uint8Array {
  const out = new Uint8Array(StatusComplete.size);
  StatusComplete.write(out, 0, { type: (type | COMPLETE) >>> 0, length: out.length, requestId, status: result });
  return out;
}
/** What was set is as after INITIALIZE: the answer says so by "addressing reset". */
function reset(c: OidContext): Uint8Array {
  const { session } = c;
  if (session.initialized) {
    session.halt();
    session.initialized = true;
    session.toldLink = c.link;
  }
  const out = new Uint8Array(ResetComplete.size);
  ResetComplete.write(out, 0, {
    type: (RndisType.reset | COMPLETE) >>> 0,
    length: out.length,
    status: RndisStatus.success,
    addressingReset: 1,
  });
  return out;
}
/** INDICATE_STATUS, with a number or without. */
export function indication(what: number, value?: number): Uint8Array {
  const out = new Uint8Array(IndicateStatus.size + (value === undefined ? 0 : 4));
  IndicateStatus.write(out, 0, {
    type: RndisType.indicateStatus,
    length: out.length,
    status: what,
    bufferLength: value === undefined ? 0 : 4,
    bufferOffset: value === undefined ? 0 : IndicateStatus.size - OFFSET_BASE,
  });
  if (value !== undefined) writeU32(out, IndicateStatus.size, value);
  return out;
}
