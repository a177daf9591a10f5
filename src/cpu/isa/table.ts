/**
 * The instruction table: encoding, operands, meaning. Decoder, interpreter, disassembler and tests are made from it.
 *
 * Operand letters are those of the opcode map (Intel SDM vol. 2, appendix A.2): E = ModRM r/m, G = ModRM reg, I = immediate,
 * B = VEX.vvvv, J = jump distance, M = memory only, O = absolute offset, S = segment register, C/D = control/debug register, Z = register in
 * the opcode, V = vector register in reg, W = vector register or memory. Sizes: b w d q; v = 16/32/64 by operand size;
 * z = the same with 32 bits at most; y = 32/64; x = 128.
 */
import type { Definition } from "./sem.js";

/** 0 = one byte, 1 = 0F, 2 = 0F38, 3 = 0F3A; behind a VEX prefix 5, 6, 7. */
export type OpcodeMap = 0 | 1 | 2 | 3 | 5 | 6 | 7;

export interface Row {
  readonly mnemonic: string;
  readonly map: OpcodeMap;
  readonly opcode: number;
  /** Mandatory prefix: 0x66, 0xF3, 0xF2, 0 = none may stand there, undefined = not looked at. */
  readonly prefix: number | undefined;
  /** ModRM.reg, ModRM.rm that select the instruction; mod: 3 = register form only, 0 = memory only. */
  readonly reg: number | undefined;
  readonly rm: number | undefined;
  readonly mod: 0 | 3 | undefined;
  readonly modrm: boolean;
  readonly operands: readonly string[];
  readonly define: Definition;
  /** The semantics' name: rows with the same name, width and operand kinds share an interpreter form. */
  readonly form: string;
  readonly options: RowOptions;
  index: number;
}

export interface RowOptions {
  /** 64-bit operand size by default in 64-bit mode. */
  readonly d64?: true;
  readonly only64?: true;
  readonly not64?: true;
  /** The instruction ends a block, whatever it does. */
  readonly ends?: true;
  /** LOCK is allowed with a memory destination. */
  readonly lock?: true;
  /** Number given to the runtime's procedure. */
  readonly selector?: number;
  /** Memory operands of it address a bit string (BT with a register). */
  readonly bitString?: true;
  /** Uses SSE state (#UD or #NM by CR0 and CR4); uses x87 state. */
  readonly sse?: true;
  readonly fpu?: true;
  /** Condition of a Jcc. */
  readonly cc?: number;
  /** RIP of the next instruction has to be in the block: the procedure may leave. */
  readonly string?: true;
  /** REP prefixes are part of the row's encoding and not of the operation. */
  readonly direct?: true;
  /** REX.W makes a difference although no operand has its size. */
  readonly rexW?: true;
  /** REX.R names a register that is none: #UD. */
  readonly noRexR?: true;
  /** No instruction: made by the decoder for what it has to skip. */
  readonly unknown?: true;
  /** Operand size is fixed to these bits, whatever the prefixes. */
  readonly width?: 8 | 16 | 32 | 64;
}

export const rows: Row[] = [];

/**
 * Adds a row.
 * @param encoding "0f af", "66 0f38 00", "f6 /0", "c8+", "d9 /4 mod3", "0f 01 /7 rm0"; "np" = no mandatory prefix, "vex" = behind VEX (L = 0)
 */
export function row(
  mnemonic: string,
  encoding: string,
  operands: string,
  define: Definition,
  options: RowOptions = {},
  form = mnemonic,
): void {
  let map: OpcodeMap = 0;
  let prefix: number | undefined;
  let opcode = -1;
  let reg: number | undefined;
  let rm: number | undefined;
  let mod: 0 | 3 | undefined;
  let plus = false;
  const vex = encoding.startsWith("vex ");
  const tokens = encoding.split(" ").slice(vex ? 1 : 0);
  tokens.forEach((t, i) => {
    if (t === "np") prefix = 0;
    else if (t === "0f" && map === 0)
      map = 1; // behind an escape it is the opcode (PALIGNR)
    else if (t === "0f38") map = 2;
    else if (t === "0f3a") map = 3;
    else if (t.startsWith("/")) reg = Number(t.slice(1));
    else if (t === "mod3") mod = 3;
    else if (t === "mem") mod = 0;
    else if (t.startsWith("rm")) {
      rm = Number(t.slice(2));
      mod = 3;
    } else if ((t === "66" || t === "f2" || t === "f3") && i === 0 && tokens.length > 1)
      prefix = Number.parseInt(t, 16);
    else {
      plus = t.endsWith("+");
      opcode = Number.parseInt(t, 16);
    }
  });
  if (!(opcode >= 0 && opcode <= 0xff)) throw new Error(`${mnemonic}: no opcode in "${encoding}"`);
  const list = operands === "" ? [] : operands.split(",");
  // a memory operand has no register form: there it is #UD
  if (mod === undefined && list.some((o) => o.startsWith("M"))) mod = 0;
  const modrm =
    reg !== undefined ||
    mod !== undefined ||
    list.some((o) => "EGMVWCDSRPQB".includes(o[0]!) && !/^(CL|DX|AL|rAX)$/.test(o));
  for (let k = 0; k < (plus ? 8 : 1); k++) {
    rows.push({
      mnemonic,
      map: vex ? ((map + 4) as OpcodeMap) : map,
      opcode: opcode + k,
      prefix,
      reg,
      rm,
      mod,
      modrm,
      operands: list,
      define,
      form,
      options,
      index: rows.length,
    });
  }
}
