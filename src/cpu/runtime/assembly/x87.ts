/** x87 instructions: the register forms of opcodes D8 to DF; x87-memory.ts has the others (Intel SDM vol. 2, tables ). */
import * as L from "./layout";
import { roundToInteger, scale, squareRoot } from "./softfloat80-arithmetic";
import { condition, fault, get16, get64, set16, ud } from "./state";
import {
  arithmeticStack, changeSign, compareFlags, compareStack, compareWithZero, copyTo, duplicate, exchange, examine, extractStack,
  loadConstant, moveConditionally, remainderStack,
} from "./x87-arithmetic";
import { noteStack } from "./mmu";
import { memoryForm } from "./x87-memory";
import {
  beginOp, C1, free, high, initialize, isEmpty, loadA, loadB, low, moveTop, note, pendingException, pop, put, setConditions, settleTo, underflowTo,
} from "./x87-stack";
import { transcendental } from "./x87-transcendental";

/** FWAIT: #NM when CR0.MP and CR0.TS are set, else the exception that waits. */
export function fwait(): i32 {
  if ((get64(L.Vp_cr0) & 0xa) == 0xa) {
    fault(7, -1);
    return L.Status_fault;
  }
  return pendingException() ? L.Status_fault : L.Status_next;
}

export function x87(r: i32): i32 {
  const bits = load<u32>(r, L.Rec_link);
  const op = i32((bits >> 16) & 7), modrm = i32(bits >> 24);
  const reg = (modrm >> 3) & 7, i = modrm & 7;
  if (modrm < 0xc0) {
    noteStack(r);
    return memoryForm(r, op, reg);
  }
  // what neither waits nor counts as an instruction on numbers
  switch (op << 8 | modrm) {
    case 0x3e0: // FENI, FDISI, FSETPM of the 8087 and 287 do nothing
    case 0x3e1:
    case 0x3e4: return L.Status_next;
    case 0x3e2: // FNCLEX
      set16(L.Vp_fsw, get16(L.Vp_fsw) & 0x7f00);
      return L.Status_next;
    case 0x3e3:
      initialize();
      return L.Status_next;
    case 0x7e0:
      set16(L.Vp_gpr, get16(L.Vp_fsw));
      return L.Status_next;
  }
  if (!defined(op, modrm)) {
    ud();
    return L.Status_fault;
  }
  if (pendingException()) return L.Status_fault;
  note(r);
  if (op == 1 && reg == 2) return L.Status_next; // FNOP
  beginOp();
  switch (op) {
    case 0:
      if ((reg & 6) != 2) arithmeticStack(reg, i, 0);
      else popIf(compareStack(i, false), reg & 1);
      break;
    case 1: group1(reg, i); break;
    case 2:
      if (reg < 4) moveConditionally(i, condition(reg == 3 ? 10 : 2 + reg * 2) != 0);
      else popIf(compareStack(1, true), 2);
      break;
    case 3:
      if (reg < 4) moveConditionally(i, condition(reg == 3 ? 11 : 3 + reg * 2) != 0);
      else compareFlags(i, reg == 5);
      break;
    case 4:
      if ((reg & 6) != 2) arithmeticStack(reg, i, i);
      else popIf(compareStack(i, false), reg & 1);
      break;
    case 5:
      switch (reg) {
        case 0:
          free(i);
          setConditions(C1, 0);
          break;
        case 1: exchange(i); break;
        case 2: copyTo(i, false); break;
        case 3: copyTo(i, true); break;
        default: popIf(compareStack(i, true), reg & 1);
      }
      break;
    case 6:
      if ((reg & 6) != 2) popIf(arithmeticStack(reg, i, i), 1);
      else popIf(compareStack(i, false), reg == 2 ? 1 : 2);
      break;
    default:
      switch (reg) {
        case 0: // FFREEP
          free(i);
          pop();
          setConditions(C1, 0);
          break;
        case 1: exchange(i); break;
        case 2:
        case 3: copyTo(i, true); break;
        default: popIf(compareFlags(i, reg == 5), 1);
      }
  }
  return L.Status_next;
}

/** Encodings without a meaning are #UD; those that processors take as another's double are not (FSTP1, FCOM2, FXCH4, ...). */
function defined(op: i32, modrm: i32): bool {
  const reg = (modrm >> 3) & 7, i = modrm & 7;
  switch (op) {
    case 1:
      if (reg == 2) return i == 0;
      if (reg == 4) return i < 2 || i == 4 || i == 5;
      return reg != 5 || i != 7;
    case 2: return reg < 4 || modrm == 0xe9;
    case 3: return reg < 4 || reg == 5 || reg == 6;
    case 5: return reg < 6;
    case 6: return reg != 3 || i == 1;
    case 7: return reg < 4 || reg == 5 || reg == 6;
    default: return true;
  }
}
function popIf(goesOn: bool, times: i32): void {
  if (!goesOn) return;
  for (let n = 0; n < times; n++) pop();
}

/** D9 */
function group1(reg: i32, i: i32): void {
  switch (reg) {
    case 0: return duplicate(i);
    case 1: return exchange(i);
    case 3: // FSTPNCE, a double of FSTP that raises no stack underflow
      if (!isEmpty(0)) put(i, high(0), low(0));
      setConditions(C1, 0);
      return pop();
    case 4:
      if (i < 2) changeSign(i == 1);
      else if (i == 4) compareWithZero();
      else examine();
      return;
    case 5: return loadConstant(i);
  }
  switch ((reg & 1) << 3 | i) {
    case 4: return extractStack();
    case 5: return remainderStack(true);
    case 6:
    case 7:
      moveTop(i == 6 ? -1 : 1);
      return setConditions(C1, 0);
    case 8: return remainderStack(false);
    case 10:
    case 12:
      if (isEmpty(0)) {
        underflowTo(0);
        return;
      }
      loadA(0);
      if (i == 2) squareRoot();
      else roundToInteger();
      settleTo(0);
      return;
    case 13:
      if (isEmpty(0) || isEmpty(1)) {
        underflowTo(0);
        return;
      }
      loadA(0);
      loadB(1);
      scale();
      settleTo(0);
      return;
    default: transcendental((reg & 1) << 3 | i);
  }
}
