/** x87 instructions on registers: arithmetic, comparison, examination, constants. */
import * as L from "./layout";
import {
  aClass, aDenormal, aSign, bClass, IE, INFINITE, INTEGER_BIT, masked, raised, roundingMode, resultHigh, resultLow, setB, swapOperands,
  UNSUPPORTED, ZERO,
} from "./softfloat80";
import {
  add, compare, divide, EQUAL, exponentHigh, exponentLow, extract, LESS, multiply, partial, remainder, remainderQuotient, UNORDERED,
} from "./softfloat80-arithmetic";
import { CF, packedFlags, PF, setArithmetic, ZF } from "./state";
import {
  C0, C1, C2, C3, high, isEmpty, loadA, loadB, low, openExceptions, pop, push, put, setConditions, settle, settleTo, stackFault, underflowTo,
} from "./x87-stack";

/** By the reg field of the arithmetic opcodes: A op B, or B op A. */
export function arithmetic(operation: i32): void {
  switch (operation) {
    case 0: add(false); break;
    case 1: multiply(); break;
    case 4: add(true); break;
    case 5:
      swapOperands();
      add(true);
      break;
    case 6: divide(); break;
    case 7:
      swapOperands();
      divide();
      break;
  }
}
/** ST(0) op ST(i) to ST(to). @returns whether there is a result, and so a pop */
export function arithmeticStack(operation: i32, i: i32, to: i32): bool {
  if (isEmpty(0) || isEmpty(i)) return underflowTo(to);
  loadA(0);
  loadB(i);
  arithmetic(operation);
  return settleTo(to);
}

// ---- comparison -----------------------------------------------------------------------------------------------------------------

function conditionCodes(relation: i32): u32 {
  return relation == UNORDERED ? C0 | C2 | C3 : relation == LESS ? C0 : relation == EQUAL ? C3 : 0;
}
/** A comparison with an empty register; unmasked, C0, C2, C3 stay. @returns whether it is masked */
export function emptyCompare(): bool {
  const goesOn = stackFault(false);
  if (goesOn) setConditions(0, C0 | C2 | C3);
  return goesOn;
}
/** Compares A with B to C0, C2, C3, which only an unmasked invalid operation leaves alone. @returns whether the instruction goes on to its pops */
export function compareTo(quiet: bool): bool {
  const relation = compare(quiet);
  const goesOn = settle(false);
  if ((openExceptions() & IE) == 0) setConditions(C0 | C2 | C3, conditionCodes(relation));
  return goesOn;
}
export function compareStack(i: i32, quiet: bool): bool {
  if (isEmpty(0) || isEmpty(i)) return emptyCompare();
  loadA(0);
  loadB(i);
  return compareTo(quiet);
}
/** FCOMI, FUCOMI: the relation goes to ZF, PF, CF, which only an unmasked invalid operation leaves alone; OF, SF, AF are cleared. */
export function compareFlags(i: i32, quiet: bool): bool {
  let relation = UNORDERED;
  let goesOn: bool, known: bool;
  if (isEmpty(0) || isEmpty(i)) known = goesOn = stackFault(false);
  else {
    loadA(0);
    loadB(i);
    relation = compare(quiet);
    goesOn = settle(false);
    known = (openExceptions() & IE) == 0;
  }
  if (!known) setArithmetic(packedFlags() & (ZF | PF | CF));
  else setArithmetic(relation == UNORDERED ? ZF | PF | CF : relation == LESS ? CF : relation == EQUAL ? ZF : 0);
  return goesOn;
}
/** FTST */
export function compareWithZero(): void {
  if (isEmpty(0)) {
    emptyCompare();
    return;
  }
  loadA(0);
  setB(0, 0);
  compareTo(false);
}
/** FXAM */
export function examine(): void {
  loadA(0);
  let c: u32;
  if (isEmpty(0)) c = C3 | C0;
  else if (aClass == ZERO) c = C3;
  else if (aClass == INFINITE) c = C2 | C0;
  else if (aClass == UNSUPPORTED) c = 0;
  else if (aClass > INFINITE) c = C0;
  else c = aDenormal ? C3 | C2 : C2;
  setConditions(C0 | C1 | C2 | C3, aSign != 0 ? c | C1 : c);
}

// ---- operations on ST(0) ----------------------------------------------------------------------------------------------------------

/** FCHS, FABS. */
export function changeSign(clear: bool): void {
  if (isEmpty(0)) {
    underflowTo(0);
    return;
  }
  setConditions(C1, 0);
  const h = high(0);
  put(0, clear ? h & 0x7fff : h ^ 0x8000, low(0));
}
/** FPREM, FPREM1: quotient bits 0, 1, 2 go to C1, C3, C0. */
export function remainderStack(nearest: bool): void {
  if (isEmpty(0) || isEmpty(1)) {
    underflowTo(0);
    setConditions(C2, 0);
    return;
  }
  loadA(0);
  loadB(1);
  remainder(nearest);
  const stored = settleTo(0);
  if (!stored || aClass > INFINITE || bClass > INFINITE || (raised & IE) != 0) {
    setConditions(C2, 0);
    return;
  }
  const q = remainderQuotient;
  setConditions(C0 | C1 | C2 | C3, (partial ? C2 : 0) | ((q & 1) != 0 ? C1 : 0) | ((q & 2) != 0 ? C3 : 0) | ((q & 4) != 0 ? C0 : 0));
}
/** FXTRACT: the exponent replaces ST(0), the significand is pushed. */
export function extractStack(): void {
  const empty = isEmpty(0);
  if (empty || !isEmpty(7)) {
    if (!stackFault(!empty)) return;
    put(0, 0xffff, 0xc000000000000000);
    push(0xffff, 0xc000000000000000);
    return;
  }
  loadA(0);
  extract();
  if (!settle(false)) return;
  if (aClass > INFINITE) put(0, resultHigh, resultLow);
  else put(0, exponentHigh, exponentLow);
  push(resultHigh, resultLow);
}
/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ. */
export function loadConstant(which: i32): void {
  if (!isEmpty(7)) {
    if (stackFault(true)) push(0xffff, 0xc000000000000000);
    return;
  }
  setConditions(C1, 0);
  // nearest and up may differ from down and toward zero in the last bit; only log2(10) has its nearest value below
  const mode = roundingMode();
  const above = u64(mode == 0 || mode == 2);
  switch (which) {
    case 0: push(0x3fff, INTEGER_BIT); break;
    case 1: push(0x4000, 0xd49a784bcd1b8afe + u64(mode == 2)); break;
    case 2: push(0x3fff, 0xb8aa3b295c17f0bb + above); break;
    case 3: push(0x4000, 0xc90fdaa22168c234 + above); break;
    case 4: push(0x3ffd, 0x9a209a84fbcff798 + above); break;
    case 5: push(0x3ffe, 0xb17217f7d1cf79ab + above); break;
    default: push(0, 0);
  }
}
/** FXCH */
export function exchange(i: i32): void {
  const e0 = isEmpty(0), ei = isEmpty(i);
  if (e0 || ei) {
    if (!stackFault(false)) return;
    if (e0) put(0, 0xffff, 0xc000000000000000);
    if (ei) put(i, 0xffff, 0xc000000000000000);
  } else setConditions(C1, 0);
  const h = high(0), l = low(0);
  put(0, high(i), low(i));
  put(i, h, l);
}
/** FCMOVcc: a register that is empty counts whatever the condition. */
export function moveConditionally(i: i32, holds: bool): void {
  if (isEmpty(0) || isEmpty(i)) {
    underflowTo(0);
    return;
  }
  if (holds) put(0, high(i), low(i));
}
/** FLD ST(i) */
export function duplicate(i: i32): void {
  const empty = isEmpty(i);
  if (empty || !isEmpty(7)) {
    if (stackFault(!empty)) push(0xffff, 0xc000000000000000);
  } else {
    setConditions(C1, 0);
    push(high(i), low(i));
  }
}
/** FST ST(i), FSTP ST(i) */
export function copyTo(i: i32, popping: bool): void {
  if (isEmpty(0)) {
    if (!underflowTo(i)) return;
  } else {
    setConditions(C1, 0);
    put(i, high(0), low(0));
  }
  if (popping) pop();
}
