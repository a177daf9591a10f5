/**
 * Straight-line runs of guest code to records (cpu-engine.md 3.2): one block starts at a looked-up address and goes on, past
 * conditional jumps, to a jump, the end of the page or MAX_INSTRUCTIONS. Records hold no virtual address, so a block belongs
 * to a physical address and a mode.
 */
import { type Form, fusedForm, lookupForm, matchSequence, specialForm, touchForm, withoutFlags } from "../isa/forms.js";
import { System } from "../isa/rows-integer.js";
import { type Row, rows } from "../isa/table.js";
import { BESIDE_STACK, Head, type MemoryLayout, ModeKey, REC_BYTES, Rec, SegIndex, Vp } from "../layout.js";
import { Decoder, type Instruction } from "./decode.js";
import { type Kind, legacyKind, Place, Trait } from "./kind.js";
import { REHEARSAL } from "./rehearsal.js";

const MAX_INSTRUCTIONS = 48;
/** Most arena bytes that one block can take: header, alias header, records with their address micro-operations. */
export const MAX_BLOCK_BYTES = (MAX_INSTRUCTIONS * 5 + 8) * REC_BYTES;

/** Bits of Rec.link in a procedure's record, above the operand width. */
export const ProcedureFlag = {
  memory: 0x100,
  rep: 0x200,
  repne: 0x400,
  lock: 0x800,
  address32: 0x1000,
  address16: 0x2000,
} as const;

export interface BlockSource {
  /**
   * Guest-physical address (RAM offset) of the page that follows `rip`'s page in linear space, -1 = fault recorded; from 2 GiB on as a
   * negative number.
   */
  secondPage(): number;
}

/** A record by fields, for the region compiler. Meaning: Rec in layout.ts. */
export interface DecodedRecord {
  readonly form: Form;
  readonly dst: number;
  readonly src: number;
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly disp: number;
  readonly immLow: number;
  readonly immHigh: number;
  readonly pageOffset: number;
  readonly length: number;
  readonly src2: number;
  /** Of a procedure: the record as it is in the memory. */
  readonly raw: Uint8Array | undefined;
}
export interface DecodedInstruction {
  readonly row: Row;
  readonly length: number;
  /** Address micro-operations first. */
  readonly records: readonly DecodedRecord[];
}

/** Rounds: before the second V8 does not note what it sees. */
const REHEARSALS = 3;
let rehearsed = false;
const SCRATCH_BYTES = 1024;
/** Records that one instruction takes at most, in bytes. */
const REHEARSAL_ROOM = 5 * REC_BYTES;

export class BlockBuilder {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #words: Int32Array;
  readonly #vp: number;
  readonly #ram: number;
  readonly #decoder = new Decoder();
  readonly #window = new Uint8Array(64);
  /** Forms of the records of the block being built, for the passes after it. */
  readonly #forms: (Form | undefined)[] = [];
  readonly #addressX: Form;
  readonly #address32: Form;
  readonly #address16: Form;
  readonly #absolute: Form;
  readonly #bitAddress: Form;
  readonly #system: Form;
  readonly #fenceForm: Form;
  readonly #jmp: Form;
  /** CALL E outside 64-bit mode. */
  readonly #callIndirect16: Kind;
  readonly #callIndirect32: Kind;
  /** Jcc by condition. */
  readonly #shortJump: readonly Form[];
  readonly poisonedHandler: number;
  readonly attendHandler: number;
  /** Of the gate to a region. */
  readonly regionHandler: number;
  #first = 0;
  #at = 0;
  #count = 0;
  /** Handlers for one instruction at a time: no fusing, all flags. */
  #single = false;

  constructor(memory: ArrayBufferLike, layout: MemoryLayout, vp: number) {
    this.#bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
    this.#words = new Int32Array(memory);
    this.#vp = layout.vps[vp]!.base;
    this.#ram = layout.ram;
    this.#addressX = specialForm("enlighten.addressX");
    this.#address32 = specialForm("enlighten.address32");
    this.#address16 = specialForm("enlighten.address16");
    this.#absolute = specialForm("enlighten.absolute");
    this.#bitAddress = specialForm("enlighten.bitAddress");
    this.#fenceForm = specialForm("enlighten.fence");
    this.#system = specialForm("system");
    this.#jmp = lookupForm(rows.find((r) => r.mnemonic === "jmp" && r.opcode === 0xeb)!, 64, "r");
    this.#shortJump = Array.from({ length: 16 }, (_, cc) =>
      lookupForm(rows.find((r) => r.map === 0 && r.opcode === 0x70 + cc)!, 32, "r"),
    );
    const callIndirect = rows.find((r) => r.options.selector === System.callNearIndirect)!;
    this.#callIndirect16 = legacyKind(callIndirect, 16);
    this.#callIndirect32 = legacyKind(callIndirect, 32);
    this.poisonedHandler = specialForm("enlighten.poisoned").id;
    this.attendHandler = specialForm("enlighten.attend").id;
    this.regionHandler = specialForm("enlighten.region").id;
    if (!rehearsed) this.#rehearse();
    rehearsed = true;
  }
  /** The first builder of a thread, before there is anything to build. */
  #rehearse(): void {
    const end = this.#vp + Vp.scratch + SCRATCH_BYTES - REHEARSAL_ROOM;
    for (let round = 0; round < REHEARSALS; round++)
      for (const { code, mode, lines } of REHEARSAL)
        for (const line of lines) {
          const bytes = Uint8Array.from(line.replaceAll(" ", "").match(/../g)!, (x) => Number.parseInt(x, 16));
          this.#first = this.#at = this.#vp + Vp.scratch;
          this.#forms.length = 0;
          this.#count = 0;
          for (let at = 0; at < bytes.length && this.#at < end; ) {
            this.#count++;
            const result = this.#decoder.decode(bytes, at, bytes.length, code);
            const { out } = this.#decoder;
            if (result === "ok") this.#emit(out, at, mode, code);
            else this.#procedure(System.ud, at, 0);
            at += Math.max(1, out.length);
          }
          this.#dropDeadFlags();
          this.#joinSequences();
        }
    this.#bytes.fill(0, this.#vp + Vp.scratch, this.#vp + Vp.scratch + SCRATCH_BYTES);
  }

  /**
   * Builds the block at RAM offset `physical` into the arena.
   * @param mode ModeKey bits
   * @returns address of its header, 0 = the second page's fetch faulted (recorded)
   */
  build(physical: number, mode: number, source: BlockSource): number {
    const v = this.#view;
    const header = v.getUint32(this.#vp + Vp.arenaNext, true);
    const page = (physical & ~0xfff) >>> 0;
    const offset = physical & 0xfff;
    const code =
      (mode & ModeKey.codeMask) === ModeKey.code64 ? 64 : (mode & ModeKey.codeMask) === ModeKey.code32 ? 32 : 16;
    this.#single = (mode & ModeKey.single) !== 0;
    this.#first = header + REC_BYTES;
    this.#at = this.#first;
    this.#count = 0;
    this.#forms.length = 0;
    const pageBase = this.#ram + page;
    let at = offset;
    let alias = 0;
    let ended = false;
    const limit = this.#single ? 1 : MAX_INSTRUCTIONS;
    while (!ended && this.#count < limit) {
      if ((mode & ModeKey.debug) !== 0) this.#procedure(System.checkDebug, at, 0);
      let bytes = this.#bytes;
      let start = pageBase + at;
      let result = this.#decoder.decode(bytes, start, pageBase + 4096, code);
      if (result === "more") {
        if (this.#count > 0) break; // it gets a block of its own
        const found = source.secondPage();
        if (found === -1) return 0;
        const second = found >>> 0;
        const here = 4096 - at;
        this.#window.set(bytes.subarray(start, pageBase + 4096), 0);
        this.#window.set(bytes.subarray(this.#ram + second, this.#ram + second + 16), here);
        bytes = this.#window;
        start = 0;
        result = this.#decoder.decode(bytes, 0, here + 16, code);
        alias = second + 1;
        this.#procedure(System.checkSecondPage, at, 0);
        v.setUint32(this.#at - REC_BYTES + Rec.imm, second, true);
      }
      const out = this.#decoder.out;
      this.#count++;
      if (result === "undefined" || result === "long") {
        this.#procedure(result === "long" ? System.gp : System.ud, at, 0);
        this.#forms[this.#forms.length - 1] = undefined;
        ended = true;
        at += Math.max(1, out.length);
        break;
      }
      this.#emit(out, at, mode, code);
      at += out.length;
      this.#fence(out, at);
      ended = (out.kind.traits & Trait.ends) !== 0;
      if (at >= 4096) break;
    }
    if (!ended) this.#continueAt(at);
    if (!this.#single) {
      this.#dropDeadFlags();
      this.#joinSequences();
    }
    const records = (this.#at - this.#first) / REC_BYTES;
    v.setUint32(header + Head.region, 0, true);
    v.setUint32(header + Head.start, physical, true);
    v.setUint32(header + Head.end, page + Math.min(at, 4096), true);
    v.setUint16(header + Head.records, records, true);
    v.setUint16(header + Head.handler, 0, true);
    v.setUint32(header + Head.mode, mode, true);
    v.setUint32(header + Head.owner, header, true);
    if (alias !== 0) {
      const second = alias - 1;
      const extra = this.#at;
      this.#at += REC_BYTES;
      v.setUint32(extra + Head.region, 0, true);
      v.setUint32(extra + Head.start, second, true);
      v.setUint32(extra + Head.end, second + (at - 4096), true);
      v.setUint16(extra + Head.records, 0, true);
      v.setUint16(extra + Head.handler, 0, true);
      v.setUint32(extra + Head.owner, header, true);
      v.setUint32(this.#vp + Vp.blockAlias, extra, true);
    } else v.setUint32(this.#vp + Vp.blockAlias, 0, true);
    v.setUint32(this.#vp + Vp.arenaNext, this.#at, true);
    return header;
  }

  /**
   * The instruction at RAM offset `physical` alone, nothing fused.
   * @param second RAM offset of the page that it may go on in, -1 = it may not
   * @returns undefined where there is none that lies there and is defined
   */
  instruction(physical: number, mode: number, second: number): DecodedInstruction | undefined {
    const code =
      (mode & ModeKey.codeMask) === ModeKey.code64 ? 64 : (mode & ModeKey.codeMask) === ModeKey.code32 ? 32 : 16;
    const start = this.#ram + physical;
    const end = this.#ram + ((physical & ~0xfff) >>> 0) + 4096;
    let result = this.#decoder.decode(this.#bytes, start, end, code);
    if (result === "more" && second >= 0) {
      const here = end - start;
      this.#window.set(this.#bytes.subarray(start, end), 0);
      this.#window.set(this.#bytes.subarray(this.#ram + second, this.#ram + second + 16), here);
      result = this.#decoder.decode(this.#window, 0, here + 16, code);
    }
    if (result !== "ok") return undefined;
    const out = this.#decoder.out;
    const scratch = this.#vp + Vp.scratch;
    this.#single = true;
    this.#at = scratch;
    this.#count = 1;
    this.#forms.length = 0;
    this.#emit(out, physical & 0xfff, mode, code);
    this.#fence(out, (physical & 0xfff) + out.length);
    const v = this.#view;
    const records = this.#forms.map((form, i): DecodedRecord => {
      const at = scratch + i * REC_BYTES;
      return {
        form: form!,
        dst: v.getUint16(at + Rec.dst, true),
        src: v.getUint16(at + Rec.src, true),
        base: v.getUint16(at + Rec.base, true),
        index: v.getUint16(at + Rec.index, true),
        scale: v.getUint8(at + Rec.scale),
        disp: v.getInt32(at + Rec.disp, true),
        immLow: v.getInt32(at + Rec.imm, true),
        immHigh: v.getInt32(at + Rec.imm + 4, true),
        pageOffset: v.getUint16(at + Rec.pageOffset, true),
        length: v.getUint8(at + Rec.length),
        src2: v.getUint8(at + Rec.src2),
        raw: form!.facts.procedure ? this.#bytes.slice(at, at + REC_BYTES) : undefined,
      };
    });
    return { row: out.row, length: out.length, records };
  }

  #clear(form: Form, at: number, length: number): number {
    const rec = this.#at;
    this.#at += REC_BYTES;
    // by words: handler, count | dst, src | base, index | disp | imm | imm | pageOffset, length | link
    const w = this.#words;
    const i = rec >>> 2;
    w[i] = form.id | (this.#count << 16);
    w[i + 1] = Vp.zero << 16;
    w[i + 2] = Vp.zero | (Vp.zero << 16);
    w[i + 3] = 0;
    w[i + 4] = 0;
    w[i + 5] = 0;
    w[i + 6] = at | (length << 16);
    w[i + 7] = 0;
    this.#forms.push(form);
    return rec;
  }
  /** @param at behind the instruction: what is left before the fence is done goes on there */
  #fence({ lock, memory, kind }: Instruction, at: number): void {
    if (!memory || !(lock || (kind.traits & Trait.exchange) !== 0)) return;
    this.#count++;
    this.#clear(this.#fenceForm, at, 0);
    this.#count--;
  }
  #procedure(selector: number, at: number, length: number): number {
    const rec = this.#clear(this.#system, at, length);
    this.#view.setUint8(rec + Rec.src2, selector);
    return rec;
  }
  #continueAt(at: number): void {
    const rec = this.#clear(this.#jmp, Math.min(at, 4095), 0);
    this.#view.setInt32(rec + Rec.imm, at, true);
  }
  /** A near jump that is cut to 16 bits: a procedure, which the opposite condition jumps over. */
  #narrowJump(at: number, length: number, target: number, cc: number | undefined): void {
    if (cc !== undefined) {
      const over = this.#clear(this.#shortJump[cc ^ 1]!, at, length);
      this.#view.setInt32(over + Rec.imm, at + length, true);
    }
    this.#view.setBigInt64(this.#procedure(System.jmpNarrow, at, length) + Rec.imm, BigInt(target), true);
  }
  #register(n: number, width: number, rex: number): number {
    if (width === 8 && rex === 0 && n >= 4 && n < 8) return Vp.gpr + (n - 4) * 8 + 1;
    return Vp.gpr + n * 8;
  }

  #emit(o: Instruction, at: number, mode: number, code: number): void {
    const v = this.#view;
    let { kind } = o;
    // an indirect jump where CS has a base: the runtime's near call knows it by its ModRM
    if ((kind.traits & Trait.legacyJump) !== 0 && (mode & ModeKey.flat) === 0)
      kind = o.width === 16 ? this.#callIndirect16 : this.#callIndirect32;
    const { row, traits, selector } = kind;
    if ((traits & Trait.state) !== 0) {
      const refusal = stateRefusal(row, mode);
      if (refusal !== 0) {
        this.#procedure(refusal, at, o.length);
        return;
      }
      // an x87 exception that waits is raised by MMX instructions too
      if (usesMmx(row, o.memory)) this.#procedure(System.fwait, at, o.length);
    }
    let base: number = o.base === 16 ? Vp.ripPage : o.base < 0 ? Vp.zero : Vp.gpr + o.base * 8;
    let index: number = o.index < 0 ? Vp.zero : Vp.gpr + o.index * 8;
    let { scale, disp } = o;
    if (o.memory) {
      if (o.base === 16) disp += at + o.length;
      // POP [RSP + d] sees RSP after the pop
      if ((traits & Trait.popMemory) !== 0 && o.base === 4) disp += o.width / 8;
      const segment =
        (traits & Trait.lea) !== 0
          ? -1
          : o.segment >= 0
            ? o.segment
            : o.base === 4 || o.base === 5
              ? SegIndex.ss
              : SegIndex.ds;
      const segBase =
        segment < 0 || (code === 64 ? segment < SegIndex.fs : segment < SegIndex.fs && (mode & ModeKey.flat) !== 0)
          ? Vp.zero
          : Vp.segBase + segment * 8;
      // an absolute offset of 64 bits; a displacement that is too long with what was added to it
      const absolute =
        (o.dispHigh !== 0 && o.dispHigh !== -1) || (o.dispHigh === -1) !== o.disp < 0 ? o.dispHigh : undefined;
      if (absolute === undefined && disp !== (disp | 0)) {
        this.#addressRecord(this.#addressX, at, o.length, base, index, scale, o.disp, Vp.zero);
        base = Vp.tempAddress;
        index = Vp.zero;
        scale = 0;
        disp -= o.disp;
      }
      if ((traits & Trait.bitString) !== 0) {
        const reg = ((o.modrm >> 3) & 7) | ((o.rex & 4) << 1);
        const rec = this.#addressRecord(this.#bitAddress, at, o.length, base, index, scale, disp, Vp.gpr + reg * 8);
        v.setInt32(rec + Rec.imm, o.width, true);
        base = Vp.tempAddress;
        index = Vp.zero;
        disp = 0;
        // a scale without an index: the address is the stack's (mmu.ts, noteStack)
        scale = o.base === 4 || o.base === 5 ? 3 : 0;
      }
      let made = false;
      if (absolute !== undefined) {
        const rec = this.#clear(this.#absolute, at, o.length);
        v.setInt32(rec + Rec.imm, o.disp, true);
        v.setInt32(rec + Rec.imm + 4, absolute, true);
        v.setUint16(rec + Rec.src, segBase, true);
        made = true;
      } else if (o.addressWidth !== 64) {
        const form = o.addressWidth === 32 ? this.#address32 : this.#address16;
        this.#addressRecord(form, at, o.length, base, index, scale, disp, segBase);
        made = true;
      } else if (segBase !== Vp.zero) {
        if (base === Vp.zero) base = segBase;
        else if (index === Vp.zero) {
          index = segBase;
          scale = 0;
        } else {
          this.#addressRecord(this.#addressX, at, o.length, base, index, scale, disp, segBase);
          made = true;
        }
      }
      if (made) {
        base = Vp.tempAddress;
        index = Vp.zero;
        scale = 0;
        disp = 0;
      }
    }
    if (o.narrow && (traits & Trait.jump) !== 0) {
      this.#narrowJump(at, o.length, at + o.length + o.immLow, kind.cc < 0 ? undefined : kind.cc);
      return;
    }
    if (kind.cc >= 0 && this.#fuse(o, at, kind.cc)) return;
    let form = !o.memory ? kind.register : index === Vp.zero ? kind.memory : kind.indexed;
    // code segments cannot be written; the rights of other segments are not looked at, nor are those of procedures' operands
    if (o.segment === SegIndex.cs && o.memory && (mode & ModeKey.real) === 0 && form.facts.stores) {
      this.#procedure(System.gp, at, o.length);
      return;
    }
    if ((traits & Trait.shift) !== 0 && (o.immLow & (o.width === 64 ? 63 : 31)) === 0)
      form = touchForm(row.operands[0] === "Eb" ? 8 : o.width, !o.memory ? "r" : index === Vp.zero ? "m" : "x");
    const rec = this.#clear(form, at, o.length);
    const w = this.#words;
    const word = rec >>> 2;
    w[word]! |= scale << 24;
    // instructions of the stack name RSP there: their faults are #SS
    const stack = (traits & Trait.stack) !== 0;
    if (!o.memory && stack) base = Vp.gpr + 4 * 8;
    w[word + 2] = base | (index << 16);
    w[word + 3] = disp;
    w[word + 4] = o.immLow;
    w[word + 5] = o.immHigh;
    let field: number = Rec.dst;
    const { plan } = kind;
    const reg = ((o.modrm >> 3) & 7) | ((o.rex & 4) << 1);
    const rm = (o.modrm & 7) | ((o.rex & 1) << 3);
    for (let i = 0; i < plan.length; i += 2) {
      const width = plan[i + 1]!;
      let place: number;
      switch (plan[i]) {
        case Place.accumulator:
          place = Vp.gpr;
          break;
        case Place.e:
          if (o.memory) continue;
          place = this.#register(rm, selector < 0 ? width : width === 8 ? 8 : 64, o.rex);
          break;
        case Place.g:
          place = this.#register(reg, width, o.rex);
          break;
        case Place.vvvv:
          place = this.#register(o.vvvv, width, 1);
          break;
        case Place.opcode:
          place = this.#register(o.opcodeRegister, width, o.rex);
          break;
        case Place.rm:
          place = Vp.gpr + rm * 8;
          break;
        case Place.segment: // REX.R is ignored
          place = reg & 7;
          break;
        case Place.number:
          place = reg;
          break;
        case Place.v:
          place = Vp.xmm + reg * 16;
          break;
        case Place.w:
          if (o.memory) continue;
          place = Vp.xmm + rm * 16;
          break;
        case Place.p:
          place = Vp.x87 + (reg & 7) * 16;
          break;
        case Place.q:
          if (o.memory) continue;
          place = Vp.x87 + (rm & 7) * 16;
          break;
        case Place.jump: {
          const target = at + o.length + o.immLow;
          w[word + 4] = target;
          w[word + 5] = target < 0 ? -1 : 0;
          if (target !== (target | 0)) v.setBigInt64(rec + Rec.imm, BigInt(target), true);
          continue;
        }
        default:
          continue;
      }
      if (field <= Rec.src) v.setUint16(rec + field, place, true);
      else v.setUint8(rec + Rec.src2, (place - Vp.gpr) >> 3);
      field += 2;
    }
    if (stack && o.memory) v.setUint8(rec + Rec.src2, BESIDE_STACK);
    if (selector >= 0) {
      v.setUint8(rec + Rec.src2, selector);
      let bits: number = o.narrow && row.operands[0] === "Jb" ? 16 : o.width;
      if (o.memory) bits |= ProcedureFlag.memory;
      if (o.repeat === 0xf3) bits |= ProcedureFlag.rep;
      if (o.repeat === 0xf2) bits |= ProcedureFlag.repne;
      if (o.lock) bits |= ProcedureFlag.lock;
      if (o.addressWidth === 32) bits |= ProcedureFlag.address32;
      if (o.addressWidth === 16) bits |= ProcedureFlag.address16;
      bits |= o.row.opcode << 16;
      bits |= o.modrm << 24;
      v.setInt32(rec + Rec.link, bits, true);
      if ((traits & Trait.string) !== 0) {
        // the source's segment base; ES is the destination's
        const seg = o.segment >= 0 ? o.segment : SegIndex.ds;
        v.setUint16(rec + Rec.base, code === 64 && seg < SegIndex.fs ? Vp.zero : Vp.segBase + seg * 8, true);
        v.setUint16(rec + Rec.index, code === 64 ? Vp.zero : Vp.segBase + SegIndex.es * 8, true);
      }
      if ((traits & Trait.imm2) !== 0) v.setUint16(rec + Rec.dst, o.imm2, true);
    }
  }
  #addressRecord(
    form: Form,
    at: number,
    length: number,
    base: number,
    index: number,
    scale: number,
    disp: number,
    src: number,
  ): number {
    const v = this.#view;
    const rec = this.#clear(form, at, length);
    v.setUint16(rec + Rec.base, base, true);
    v.setUint16(rec + Rec.index, index, true);
    v.setUint8(rec + Rec.scale, scale);
    v.setInt32(rec + Rec.disp, disp, true);
    v.setUint16(rec + Rec.src, src, true);
    return rec;
  }

  /** Turns a compare record and the Jcc `o` into one. */
  #fuse(o: Instruction, at: number, cc: number): boolean {
    if (this.#single || this.#forms.length === 0) return false;
    const before = this.#forms.at(-1);
    if (before === undefined) return false;
    const form = fusedForm(before, cc);
    const target = at + o.length + o.immLow;
    if (form === undefined || target !== (target | 0)) return false;
    const rec = this.#at - REC_BYTES;
    const v = this.#view;
    v.setUint16(rec + Rec.handler, form.id, true);
    v.setUint8(rec + Rec.count, this.#count);
    v.setInt32(rec + Rec.imm + 4, target, true);
    this.#forms[this.#forms.length - 1] = form;
    return true;
  }

  /** Gives the first record of a known sequence the arm that runs all of it. The others stay as they are. */
  #joinSequences(): void {
    for (let i = 0; i < this.#forms.length; i++) {
      if (this.#forms[i] === undefined) continue;
      const sequence = matchSequence(this.#forms, i);
      if (sequence === undefined) continue;
      this.#view.setUint16(this.#first + i * REC_BYTES + Rec.handler, sequence.id, true);
      i += sequence.parts!.length - 1;
    }
  }

  /** Flags that the next instructions overwrite before anything can look at them need not be kept. */
  #dropDeadFlags(): void {
    let dead = false;
    for (let i = this.#forms.length - 1; i >= 0; i--) {
      const form = this.#forms[i];
      if (form === undefined) {
        dead = false;
        continue;
      }
      let { facts } = form;
      if (dead && facts.touchesFlags) {
        const other = withoutFlags(form);
        if (other !== undefined) {
          this.#view.setUint16(this.#first + i * REC_BYTES + Rec.handler, other.id, true);
          this.#forms[i] = other;
          facts = other.facts;
        }
      }
      if (facts.readsFlags || facts.canFault || facts.canLeave) dead = false;
      else if (facts.writesFlags) dead = true;
    }
  }
}

/** Procedure instead of an instruction whose state CR0 or CR4 keeps away, 0 = it may run (Intel SDM vol. 3, "Control Registers"). */
function stateRefusal({ options, form, mnemonic, operands, map }: Row, mode: number): number {
  // VEX is unknown in real mode
  if (map > 3) return mode & ModeKey.real ? System.ud : 0;
  if (options.sse && mode & (ModeKey.noSse | ModeKey.emulate)) return System.ud;
  if (mode & ModeKey.emulate) {
    if (form === "x87" || mnemonic === "fxsave" || mnemonic === "fxrstor") return System.noFpu;
    if (mnemonic === "emms" || operands.some((x) => x[0] === "P" || x[0] === "Q")) return System.ud;
  }
  return mode & ModeKey.noFpu ? System.noFpu : 0;
}

/** Whether the instruction reads or writes an MMX register. */
const usesMmx = ({ mnemonic, operands }: Row, memory: boolean): boolean =>
  mnemonic === "emms" || operands.some((x) => x[0] === "P" || (x[0] === "Q" && !memory));
