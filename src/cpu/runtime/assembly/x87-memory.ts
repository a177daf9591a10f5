/** x87 instructions with a memory operand. */
import { VP } from "./env";
import * as L from "./layout";
import { readable, write, writeBytes } from "./mmu";
import {
  DE, IE, indefinite, masked, OE, raiseFlags, resultHigh, resultLow, setConvertedB, setResult, SNAN, classify, UE,
} from "./softfloat80";
import {
  bcdIndefinite, convertedDenormal, convertedHigh, convertedLow, fromBcd, fromDouble, fromInteger, fromSingle, toBcd, toDouble, toInteger,
  toSingle,
} from "./softfloat80-convert";
import { get16, set64, ud } from "./state";
import { ea } from "./system";
import { arithmetic, compareTo } from "./x87-arithmetic";
import { loadEnvironment, restoreState, saveState, storeEnvironment } from "./x87-environment";
import {
  begin, high, isEmpty, loadA, low, openExceptions, pendingException, pop, push, setControlWord, settle, stackFault, summarize,
} from "./x87-stack";

/** Formats of a memory operand. */
const SINGLE: i32 = 0, DOUBLE: i32 = 1, EXTENDED: i32 = 2, INT16: i32 = 3, INT32: i32 = 4, INT64: i32 = 5, BCD: i32 = 6;

function sizeOf(format: i32): i32 {
  switch (format) {
    case INT16: return 2;
    case SINGLE:
    case INT32: return 4;
    case DOUBLE:
    case INT64: return 8;
    default: return 10;
  }
}
/** Reads and converts the operand to converted*. @returns 0 = fault */
function fetch(va: u64, format: i32): i32 {
  const at = readable(va, sizeOf(format));
  if (at == 0) return 0;
  switch (format) {
    case SINGLE: fromSingle(load<u32>(at)); break;
    case DOUBLE: fromDouble(load<u64>(at)); break;
    case INT16: fromInteger(i64(load<i16>(at))); break;
    case INT32: fromInteger(i64(load<i32>(at))); break;
    case INT64: fromInteger(load<i64>(at)); break;
    case BCD: fromBcd(load<u64>(at), load<u16>(at, 8)); break;
    default: setResult(load<u16>(at, 8), load<u64>(at));
  }
  return 1;
}

function loadOperand(r: i32, format: i32): i32 {
  const va = ea(r);
  if (!fetch(va, format)) return L.Status_fault;
  begin(r);
  set64(L.Vp_fdp, va);
  if (!isEmpty(7)) {
    if (stackFault(true)) {
      indefinite();
      push(resultHigh, resultLow);
    }
    return L.Status_next;
  }
  if (format != EXTENDED) {
    let value = convertedLow;
    if (convertedDenormal) raiseFlags(DE);
    if (classify(i32(convertedHigh & 0x7fff), value) == SNAN) {
      raiseFlags(IE);
      value |= u64(1) << 62;
    }
    setResult(convertedHigh, value);
  }
  if (settle(false)) push(resultHigh, resultLow);
  return L.Status_next;
}

/** @param truncate FISTTP */
function storeOperand(r: i32, format: i32, popping: bool, truncate: bool): i32 {
  const va = ea(r);
  const image = VP + L.Vp_scratch;
  const empty = isEmpty(0);
  const size = sizeOf(format);
  beginStore();
  if (empty) {
    switch (format) {
      case SINGLE: store<u32>(image, 0xffc00000); break;
      case DOUBLE: store<u64>(image, 0xfff8000000000000); break;
      case INT16: store<u16>(image, 0x8000); break;
      case INT32: store<u32>(image, 0x80000000); break;
      case INT64: store<u64>(image, 0x8000000000000000); break;
      default: bcdIndefinite(image); // the same bytes as the real indefinite
    }
  } else {
    loadA(0);
    switch (format) {
      case SINGLE: store<u32>(image, toSingle()); break;
      case DOUBLE: store<u64>(image, toDouble()); break;
      case INT16: store<u16>(image, <u16>toInteger(16, truncate)); break;
      case INT32: store<u32>(image, <u32>toInteger(32, truncate)); break;
      case INT64: store<i64>(image, toInteger(64, truncate)); break;
      case BCD: toBcd(image); break;
      default:
        store<u64>(image, low(0));
        store<u16>(image, <u16>high(0), 8);
    }
  }
  const stored = empty ? masked(IE) : (openExceptions() & (IE | OE | UE)) == 0;
  if (stored && !(size > 8 ? writeBytes(va, size, image) : write(va, size, load<u64>(image)))) return L.Status_fault;
  noteStore(r, va);
  if (empty) stackFault(false);
  else settle(true);
  if (stored && popping) pop();
  return L.Status_next;
}
