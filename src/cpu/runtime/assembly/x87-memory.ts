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
import { get16, ud } from "./state";
import { ea } from "./system";
import { arithmetic, compareTo, emptyCompare } from "./x87-arithmetic";
import { loadEnvironment, restoreState, saveState, storeEnvironment } from "./x87-environment";
import {
  beginOp, high, isEmpty, loadA, low, noteMemory, openExceptions, pendingException, pop, push, setControlWord, settle, stackFault,
  settleTo, summarize, underflowTo,
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
  noteMemory(r, va);
  beginOp();
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
  // an unmasked denormal is loaded all the same (Intel; the manual has the stack left alone, as AMD's processors do)
  if (settle(false) || openExceptions() == DE) push(resultHigh, resultLow);
  return L.Status_next;
}

/** @param truncate FISTTP */
function storeOperand(r: i32, format: i32, popping: bool, truncate: bool): i32 {
  const va = ea(r);
  const image = VP + L.Vp_scratch;
  const empty = isEmpty(0);
  const size = sizeOf(format);
  beginOp();
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
  if (stored) {
    if (!(size > 8 ? writeBytes(va, size, image) : write(va, size, load<u64>(image)))) return L.Status_fault;
  } // else memory is not looked at (Intel; on AMD's processors #PF comes first)
  noteMemory(r, va);
  if (empty) stackFault(false);
  else settle(true);
  if (stored && popping) pop();
  return L.Status_next;
}

function arithmeticOperand(r: i32, operation: i32, format: i32): i32 {
  const va = ea(r);
  if (!fetch(va, format)) return L.Status_fault;
  noteMemory(r, va);
  beginOp();
  const compares = operation == 2 || operation == 3;
  if (isEmpty(0)) {
    if (compares) emptyCompare();
    else underflowTo(0);
    if (operation == 3 && masked(IE)) pop();
    return L.Status_next;
  }
  loadA(0);
  setConvertedB(convertedHigh, convertedLow, convertedDenormal);
  if (!compares) {
    arithmetic(operation);
    settleTo(0);
  } else if (compareTo(false) && operation == 3) pop();
  return L.Status_next;
}

/** Opcode 0xd8 + op with a memory operand. */
export function memoryForm(r: i32, op: i32, reg: i32): i32 {
  switch (op << 3 | reg) {
    case 0x0e: return storeEnvironment(r, ea(r));
    case 0x2e: return saveState(r, ea(r));
    case 0x0f: return write(ea(r), 2, u64(get16(L.Vp_fcw))) ? L.Status_next : L.Status_fault;
    case 0x2f: return write(ea(r), 2, u64(get16(L.Vp_fsw))) ? L.Status_next : L.Status_fault;
    case 0x09:
    case 0x1c:
    case 0x1e:
    case 0x2d:
      ud();
      return L.Status_fault;
  }
  if (pendingException()) return L.Status_fault;
  if ((op & 1) == 0) return arithmeticOperand(r, reg, op == 0 ? SINGLE : op == 2 ? INT32 : op == 4 ? DOUBLE : INT16);
  switch (op << 3 | reg) {
    case 0x0c: return loadEnvironment(r, ea(r));
    case 0x2c: return restoreState(r, ea(r));
    case 0x0d: {
      const at = readable(ea(r), 2);
      if (at == 0) return L.Status_fault;
      setControlWord(load<u16>(at));
      summarize();
      return L.Status_next;
    }
    case 0x1d: return loadOperand(r, EXTENDED);
    case 0x1f: return storeOperand(r, EXTENDED, true, false);
    case 0x3c: return loadOperand(r, BCD);
    case 0x3d: return loadOperand(r, INT64);
    case 0x3e: return storeOperand(r, BCD, true, false);
    case 0x3f: return storeOperand(r, INT64, true, false);
  }
  const format = op == 1 ? SINGLE : op == 3 ? INT32 : op == 5 ? DOUBLE : INT16;
  if (reg == 0) return loadOperand(r, format);
  if (reg == 1) return storeOperand(r, format == DOUBLE ? INT64 : format, true, true);
  return storeOperand(r, format, reg == 3, false);
}
