/**
 * A WebAssembly module writer: bytes out, no text, no per-byte arrays.
 *
 * Covers what the engine emits (core 1.0, sign extension, bulk memory, SIMD, threads). A function body is written in one
 * pass; its locals are declared when it is finished. Citations: WebAssembly Core Specification 2.0, "Binary Format".
 */

/** Value types, by their binary codes. */
export const ValType = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const;
export type ValTypeName = keyof typeof ValType;

/** Opcodes without immediates, by their text names with "." and "_" kept apart (`i64.add` is `i64_add`). */
export const Op = {
  unreachable: 0x00,
  nop: 0x01,
  else: 0x05,
  end: 0x0b,
  return: 0x0f,
  drop: 0x1a,
  select: 0x1b,
  i32_eqz: 0x45,
  i32_eq: 0x46,
  i32_ne: 0x47,
  i32_lt_s: 0x48,
  i32_lt_u: 0x49,
  i32_gt_s: 0x4a,
  i32_gt_u: 0x4b,
  i32_le_s: 0x4c,
  i32_le_u: 0x4d,
  i32_ge_s: 0x4e,
  i32_ge_u: 0x4f,
  i64_eqz: 0x50,
  i64_eq: 0x51,
  i64_ne: 0x52,
  i64_lt_s: 0x53,
  i64_lt_u: 0x54,
  i64_gt_s: 0x55,
  i64_gt_u: 0x56,
  i64_le_s: 0x57,
  i64_le_u: 0x58,
  i64_ge_s: 0x59,
  i64_ge_u: 0x5a,
  f32_eq: 0x5b,
  f32_ne: 0x5c,
  f32_lt: 0x5d,
  f32_gt: 0x5e,
  f32_le: 0x5f,
  f32_ge: 0x60,
  f64_eq: 0x61,
  f64_ne: 0x62,
  f64_lt: 0x63,
  f64_gt: 0x64,
  f64_le: 0x65,
  f64_ge: 0x66,
  i32_clz: 0x67,
  i32_ctz: 0x68,
  i32_popcnt: 0x69,
  i32_add: 0x6a,
  i32_sub: 0x6b,
  i32_mul: 0x6c,
  i32_div_s: 0x6d,
  i32_div_u: 0x6e,
  i32_rem_s: 0x6f,
  i32_rem_u: 0x70,
  i32_and: 0x71,
  i32_or: 0x72,
  i32_xor: 0x73,
  i32_shl: 0x74,
  i32_shr_s: 0x75,
  i32_shr_u: 0x76,
  i32_rotl: 0x77,
  i32_rotr: 0x78,
  i64_clz: 0x79,
  i64_ctz: 0x7a,
  i64_popcnt: 0x7b,
  i64_add: 0x7c,
  i64_sub: 0x7d,
  i64_mul: 0x7e,
  i64_div_s: 0x7f,
  i64_div_u: 0x80,
  i64_rem_s: 0x81,
  i64_rem_u: 0x82,
  i64_and: 0x83,
  i64_or: 0x84,
  i64_xor: 0x85,
  i64_shl: 0x86,
  i64_shr_s: 0x87,
  i64_shr_u: 0x88,
  i64_rotl: 0x89,
  i64_rotr: 0x8a,
  f32_abs: 0x8b,
  f32_neg: 0x8c,
  f32_ceil: 0x8d,
  f32_floor: 0x8e,
  f32_trunc: 0x8f,
  f32_nearest: 0x90,
  f32_sqrt: 0x91,
  f32_add: 0x92,
  f32_sub: 0x93,
  f32_mul: 0x94,
  f32_div: 0x95,
  f64_abs: 0x99,
  f64_neg: 0x9a,
  f64_ceil: 0x9b,
  f64_floor: 0x9c,
  f64_trunc: 0x9d,
  f64_nearest: 0x9e,
  f64_sqrt: 0x9f,
  f64_add: 0xa0,
  f64_sub: 0xa1,
  f64_mul: 0xa2,
  f64_div: 0xa3,
  i32_wrap_i64: 0xa7,
  i32_trunc_f32_s: 0xa8,
  i32_trunc_f64_s: 0xaa,
  i64_trunc_f32_s: 0xae,
  i64_trunc_f64_s: 0xb0,
  i64_extend_i32_s: 0xac,
  i64_extend_i32_u: 0xad,
  f32_convert_i32_s: 0xb2,
  f32_convert_i64_s: 0xb4,
  f32_demote_f64: 0xb6,
  f64_convert_i32_s: 0xb7,
  f64_convert_i64_s: 0xb9,
  f64_promote_f32: 0xbb,
  i32_reinterpret_f32: 0xbc,
  i64_reinterpret_f64: 0xbd,
  f32_reinterpret_i32: 0xbe,
  f64_reinterpret_i64: 0xbf,
  i32_extend8_s: 0xc0,
  i32_extend16_s: 0xc1,
  i64_extend8_s: 0xc2,
  i64_extend16_s: 0xc3,
  i64_extend32_s: 0xc4,
} as const;
export type OpName = keyof typeof Op;

/** Loads and stores: opcode and the natural alignment exponent. */
export const MemOp = {
  i32_load: [0x28, 2],
  i64_load: [0x29, 3],
  f32_load: [0x2a, 2],
  f64_load: [0x2b, 3],
  i32_load8_s: [0x2c, 0],
  i32_load8_u: [0x2d, 0],
  i32_load16_s: [0x2e, 1],
  i32_load16_u: [0x2f, 1],
  i64_load8_s: [0x30, 0],
  i64_load8_u: [0x31, 0],
  i64_load16_s: [0x32, 1],
  i64_load16_u: [0x33, 1],
  i64_load32_s: [0x34, 2],
  i64_load32_u: [0x35, 2],
  i32_store: [0x36, 2],
  i64_store: [0x37, 3],
  f32_store: [0x38, 2],
  f64_store: [0x39, 3],
  i32_store8: [0x3a, 0],
  i32_store16: [0x3b, 1],
  i64_store8: [0x3c, 0],
  i64_store16: [0x3d, 1],
  i64_store32: [0x3e, 2],
} as const;
export type MemOpName = keyof typeof MemOp;

/** Growable byte buffer with LEB128 writers. */
export class ByteWriter {
  bytes: Uint8Array = new Uint8Array(1024);
  length = 0;

  #grow(more: number): void {
    const bigger = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more));
    bigger.set(this.bytes.subarray(0, this.length));
    this.bytes = bigger;
  }
  u8(value: number): void {
    if (this.length === this.bytes.length) this.#grow(1);
    this.bytes[this.length++] = value;
  }
  raw(bytes: Uint8Array): void {
    if (this.length + bytes.length > this.bytes.length) this.#grow(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }
  u32(value: number): void {
    let v = value >>> 0;
    while (v > 0x7f) {
      this.u8((v & 0x7f) | 0x80);
      v >>>= 7;
    }
    this.u8(v);
  }
  /** Signed LEB128 of a 32-bit value. */
  s32(value: number): void {
    let v = value | 0;
    for (;;) {
      const low = v & 0x7f;
      v >>= 7;
      if ((v === 0 && (low & 0x40) === 0) || (v === -1 && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }
  /** Signed LEB128 of any safe integer. */
  s64(value: number): void {
    if (value === (value | 0)) {
      this.s32(value);
      return;
    }
    let v = BigInt(value);
    for (;;) {
      const low = Number(v & 0x7fn);
      v >>= 7n;
      if ((v === 0n && (low & 0x40) === 0) || (v === -1n && (low & 0x40) !== 0)) {
        this.u8(low);
        return;
      }
      this.u8(low | 0x80);
    }
  }
  /** Signed LEB128 of a 64-bit value in two halves. */
  words(low: number, high: number): void {
    if (high === low >> 31) {
      this.s32(low);
      return;
    }
    let v = (BigInt(high) << 32n) | BigInt(low >>> 0);
    for (;;) {
      const part = Number(v & 0x7fn);
      v >>= 7n;
      if ((v === 0n && (part & 0x40) === 0) || (v === -1n && (part & 0x40) !== 0)) {
        this.u8(part);
        return;
      }
      this.u8(part | 0x80);
    }
  }
  name(text: string): void {
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    this.u32(bytes.length);
    this.raw(bytes);
  }
  take(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }
}

/** Room of an index that is filled in later: LEB128 with a byte that may be 0. */
export const REFERENCE_BYTES = 2;
/** @param at place of the index in `code` */
export function fillReference(code: Uint8Array, at: number, index: number): void {
  if (index >= 1 << 14) throw new Error("an index is too large for its room");
  code[at] = (index & 0x7f) | 0x80;
  code[at + 1] = index >>> 7;
}

/** One function being written. Locals are typed and numbered after the parameters. */
export class FunctionBuilder {
  code = new ByteWriter();
  /** Branch hints: offsets in the code. */
  hints: { readonly at: number; readonly taken: boolean }[] = [];
  /** Indices that are filled in when the function's module is known (REFERENCE_BYTES each): offsets in the code. */
  references: { readonly at: number; readonly n: number }[] = [];
  readonly params: readonly ValTypeName[];
  readonly results: readonly ValTypeName[];
  readonly #locals: ValTypeName[] = [];
  #gaps: { readonly at: number; readonly write: (f: FunctionBuilder) => void }[] = [];
  /** Open blocks, so that labels can be turned into relative depths. */
  #depth = 0;

  constructor(params: readonly ValTypeName[], results: readonly ValTypeName[]) {
    this.params = params;
    this.results = results;
  }
  local(type: ValTypeName): number {
    this.#locals.push(type);
    return this.params.length + this.#locals.length - 1;
  }
  op(name: OpName): void {
    this.code.u8(Op[name]);
  }
  i32(value: number): void {
    this.code.u8(0x41);
    this.code.s32(value);
  }
  i64(value: number): void {
    this.code.u8(0x42);
    this.code.s64(value);
  }
  i64Words(low: number, high: number): void {
    this.code.u8(0x42);
    this.code.words(low, high);
  }
  /** The next `if` or `br_if` is mostly taken. */
  likely(): void {
    this.hints.push({ at: this.code.length, taken: true });
  }
  unlikely(): void {
    this.hints.push({ at: this.code.length, taken: false });
  }
  f64(value: number): void {
    this.code.u8(0x44);
    this.code.raw(new Uint8Array(new Float64Array([value]).buffer));
  }
  get(local: number): void {
    this.code.u8(0x20);
    this.code.u32(local);
  }
  set(local: number): void {
    this.code.u8(0x21);
    this.code.u32(local);
  }
  tee(local: number): void {
    this.code.u8(0x22);
    this.code.u32(local);
  }
  globalGet(global: number): void {
    this.code.u8(0x23);
    this.code.u32(global);
  }
  /** @param align alignment exponent promised to the engine; 0 unless known, since guest addresses are arbitrary */
  mem(name: MemOpName, offset: number, align = 0): void {
    const [code, natural] = MemOp[name];
    this.code.u8(code);
    this.code.u32(Math.min(align, natural));
    this.code.u32(offset);
  }
  /** A SIMD opcode (prefix 0xFD) without immediates. */
  simd(opcode: number): void {
    this.code.u8(0xfd);
    this.code.u32(opcode);
  }
  simdMem(opcode: number, offset: number, align = 0): void {
    this.simd(opcode);
    this.code.u32(align);
    this.code.u32(offset);
  }
  simdLane(opcode: number, lane: number): void {
    this.simd(opcode);
    this.code.u8(lane);
  }
  v128(bytes: Uint8Array): void {
    this.simd(12);
    this.code.raw(bytes);
  }
  shuffle(lanes: readonly number[]): void {
    this.simd(13);
    for (const lane of lanes) this.code.u8(lane);
  }
  /** An opcode of the 0xFC page: saturating truncation (0..7), memory.copy (10), memory.fill (11). */
  misc(opcode: number): void {
    this.code.u8(0xfc);
    this.code.u32(opcode);
    if (opcode === 10) this.code.u8(0);
    if (opcode === 10 || opcode === 11) this.code.u8(0);
  }
  /** No access to memory passes it (atomic.fence). */
  fence(): void {
    this.code.u8(0xfe);
    this.code.u8(0x03);
    this.code.u8(0x00);
  }
  call(func: number): void {
    this.code.u8(0x10);
    this.code.u32(func);
  }
  /** Calls in place of this function, whose frame is gone then. */
  returnCall(func: number): void {
    this.code.u8(0x12);
    this.code.u32(func);
  }
  /** The same, and an imported constant, by the function's own number for what is meant. */
  callReference(n: number): void {
    this.#refer(0x10, n);
  }
  returnCallReference(n: number): void {
    this.#refer(0x12, n);
  }
  globalReference(n: number): void {
    this.#refer(0x23, n);
  }
  #refer(opcode: number, n: number): void {
    this.code.u8(opcode);
    this.references.push({ at: this.code.length, n });
    for (let i = 0; i < REFERENCE_BYTES; i++) this.code.u8(0);
  }
  returnCallIndirect(type: number, table = 0): void {
    this.code.u8(0x13);
    this.code.u32(type);
    this.code.u32(table);
  }
  callIndirect(type: number, table = 0): void {
    this.code.u8(0x11);
    this.code.u32(type);
    this.code.u32(table);
  }
  /**
   * Leaves a gap for code without blocks that is known when the rest is written.
   * @param write called by `fillGaps`, once for all gaps of the same function
   */
  later(write: (f: FunctionBuilder) => void): void {
    this.#gaps.push({ at: this.code.length, write });
  }
  fillGaps(): void {
    const gaps = this.#gaps;
    if (gaps.length === 0) return;
    const texts = new Map<(f: FunctionBuilder) => void, Uint8Array>();
    const code = new ByteWriter();
    const { hints, references } = this;
    this.hints = [];
    this.references = [];
    let from = 0;
    let hint = 0;
    let reference = 0;
    // of hints and references, which ascend as gaps do
    const shift = (to: number): void => {
      const by = code.length - from;
      for (; hint < hints.length && hints[hint]!.at < to; hint++)
        this.hints.push({ ...hints[hint]!, at: hints[hint]!.at + by });
      for (; reference < references.length && references[reference]!.at < to; reference++)
        this.references.push({ ...references[reference]!, at: references[reference]!.at + by });
    };
    for (const { at, write } of gaps) {
      let text = texts.get(write);
      if (text === undefined) {
        const f = new FunctionBuilder(this.params, this.results);
        write(f);
        if (f.references.length > 0 || f.hints.length > 0) throw new Error("a gap has neither references nor hints");
        text = f.code.take();
        texts.set(write, text);
      }
      shift(at);
      code.raw(this.code.bytes.subarray(from, at));
      code.raw(text);
      from = at;
    }
    shift(Number.POSITIVE_INFINITY);
    code.raw(this.code.bytes.subarray(from, this.code.length));
    this.code = code;
    this.#gaps = [];
  }
  /** Puts the code of another builder with the same locals in front. */
  prepend(before: FunctionBuilder): void {
    const code = new ByteWriter();
    code.raw(before.code.take());
    const shift = code.length;
    code.raw(this.code.take());
    this.code = code;
    this.hints = [...before.hints, ...this.hints.map((h) => ({ ...h, at: h.at + shift }))];
    this.references = [...before.references, ...this.references.map((r) => ({ ...r, at: r.at + shift }))];
  }
  /** @returns the label of the new block, to be given to br */
  block(result?: ValTypeName): number {
    return this.#open(0x02, result);
  }
  loop(result?: ValTypeName): number {
    return this.#open(0x03, result);
  }
  if(result?: ValTypeName): number {
    return this.#open(0x04, result);
  }
  #open(opcode: number, result: ValTypeName | undefined): number {
    this.code.u8(opcode);
    this.code.u8(result === undefined ? 0x40 : ValType[result]);
    return ++this.#depth;
  }
  else(): void {
    this.code.u8(Op.else);
  }
  end(): void {
    this.code.u8(Op.end);
    this.#depth--;
  }
  br(label: number): void {
    this.code.u8(0x0c);
    this.code.u32(this.#depth - label);
  }
  brIf(label: number): void {
    this.code.u8(0x0d);
    this.code.u32(this.#depth - label);
  }
  brTable(labels: readonly number[], otherwise: number): void {
    this.code.u8(0x0e);
    this.code.u32(labels.length);
    for (const label of labels) this.code.u32(this.#depth - label);
    this.code.u32(this.#depth - otherwise);
  }
  /** Bytes of local declarations in front of the code, after `finish`. */
  declarationBytes = 0;
  /** The body with its local declarations, as the code section wants it. */
  finish(): Uint8Array {
    const out = new ByteWriter();
    const runs: [ValTypeName, number][] = [];
    for (const type of this.#locals) {
      const last = runs.at(-1);
      if (last !== undefined && last[0] === type) last[1]++;
      else runs.push([type, 1]);
    }
    out.u32(runs.length);
    for (const [type, count] of runs) {
      out.u32(count);
      out.u8(ValType[type]);
    }
    this.declarationBytes = out.length;
    out.raw(this.code.take());
    out.u8(Op.end);
    return out.take();
  }
}

/** A function as a module takes it. */
export type FunctionBody = Pick<FunctionBuilder, "params" | "results" | "hints" | "declarationBytes" | "finish">;

export interface ImportedFunction {
  readonly module: string;
  readonly name: string;
  readonly params: readonly ValTypeName[];
  readonly results: readonly ValTypeName[];
}

/**
 * A module with one imported shared or unshared memory, imported functions first, imported constants, and one optional table of its
 * own functions.
 */
export class ModuleBuilder {
  readonly #types: string[] = [];
  readonly #imports: ImportedFunction[] = [];
  readonly #globals: { module: string; name: string; type: ValTypeName }[] = [];
  readonly #functions: { name: string | undefined; body: FunctionBody }[] = [];
  #table: readonly number[] = [];
  #importedTable: { module: string; name: string; minimum: number } | undefined;
  readonly #memory: { minimum: number; maximum: number; shared: boolean };

  /** @param memory bounds of the imported memory `env.memory`, in 64 KiB pages */
  constructor(memory: { minimum: number; maximum: number; shared: boolean }) {
    this.#memory = memory;
  }
  typeIndex(params: readonly ValTypeName[], results: readonly ValTypeName[]): number {
    const key = `${params.join()}:${results.join()}`;
    const known = this.#types.indexOf(key);
    return known >= 0 ? known : this.#types.push(key) - 1;
  }
  /** At any time: the module's own functions get their indices when it is finished. @returns the index for calls */
  importFunction(imported: ImportedFunction): number {
    return this.#imports.push(imported) - 1;
  }
  /** A global that never changes. @returns its index */
  importGlobal(module: string, name: string, type: ValTypeName): number {
    return this.#globals.push({ module, name, type }) - 1;
  }
  /** @returns the function's place among the module's own */
  add(body: FunctionBody, exportName?: string): number {
    return this.#functions.push({ name: exportName, body }) - 1;
  }
  /** A table of functions that is table 0; the module's own then is table 1. */
  importTable(module: string, name: string, minimum: number): void {
    this.#importedTable = { module, name, minimum };
  }
  /** The functions (by their places) that call_indirect reaches, in table order. */
  table(functions: readonly number[]): void {
    this.#table = functions;
  }
  finish(): Uint8Array<ArrayBuffer> {
    const importTypes = this.#imports.map((i) => this.typeIndex(i.params, i.results));
    const functionTypes = this.#functions.map((f) => this.typeIndex(f.body.params, f.body.results));
    const out = new ByteWriter();
    for (const byte of [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]) out.u8(byte);
    const section = (id: number, write: (s: ByteWriter) => void): void => {
      const s = new ByteWriter();
      write(s);
      out.u8(id);
      out.u32(s.length);
      out.raw(s.take());
    };
    section(1, (s) => {
      s.u32(this.#types.length);
      for (const key of this.#types) {
        s.u8(0x60);
        for (const list of key.split(":")) {
          const names = list === "" ? [] : (list.split(",") as ValTypeName[]);
          s.u32(names.length);
          for (const name of names) s.u8(ValType[name]);
        }
      }
    });
    section(2, (s) => {
      const table = this.#importedTable;
      s.u32(this.#imports.length + this.#globals.length + (table === undefined ? 1 : 2));
      this.#imports.forEach((imported, i) => {
        s.name(imported.module);
        s.name(imported.name);
        s.u8(0);
        s.u32(importTypes[i]!);
      });
      for (const { module, name, type } of this.#globals) {
        s.name(module);
        s.name(name);
        s.u8(3);
        s.u8(ValType[type]);
        s.u8(0);
      }
      if (table !== undefined) {
        s.name(table.module);
        s.name(table.name);
        s.u8(1);
        s.u8(0x70);
        s.u8(0);
        s.u32(table.minimum);
      }
      s.name("env");
      s.name("memory");
      s.u8(2);
      s.u8(this.#memory.shared ? 3 : 1);
      s.u32(this.#memory.minimum);
      s.u32(this.#memory.maximum);
    });
    section(3, (s) => {
      s.u32(functionTypes.length);
      for (const type of functionTypes) s.u32(type);
    });
    if (this.#table.length > 0) {
      section(4, (s) => {
        s.u32(1);
        s.u8(0x70);
        s.u8(1);
        s.u32(this.#table.length);
        s.u32(this.#table.length);
      });
    }
    const exported = this.#functions
      .map((f, i) => [f.name, i + this.#imports.length] as const)
      .filter(([n]) => n !== undefined);
    section(7, (s) => {
      s.u32(exported.length);
      for (const [name, index] of exported) {
        s.name(name!);
        s.u8(0);
        s.u32(index);
      }
    });
    if (this.#table.length > 0) {
      section(9, (s) => {
        s.u32(1);
        if (this.#importedTable === undefined) s.u8(0);
        else {
          // an active segment for a table by number
          s.u8(2);
          s.u32(1);
        }
        s.u8(0x41);
        s.s32(0);
        s.u8(0x0b);
        if (this.#importedTable !== undefined) s.u8(0);
        s.u32(this.#table.length);
        for (const f of this.#table) s.u32(f + this.#imports.length);
      });
    }
    const bodies = this.#functions.map((f) => f.body.finish());
    const hinted = this.#functions
      .map(({ body }, i) => ({ body, index: i + this.#imports.length }))
      .filter(({ body }) => body.hints.length > 0);
    if (hinted.length > 0) {
      section(0, (s) => {
        s.name("metadata.code.branch_hint");
        s.u32(hinted.length);
        for (const { body, index } of hinted) {
          s.u32(index);
          s.u32(body.hints.length);
          for (const { at, taken } of body.hints) {
            s.u32(at + body.declarationBytes);
            s.u32(1);
            s.u8(taken ? 1 : 0);
          }
        }
      });
    }
    section(10, (s) => {
      s.u32(bodies.length);
      for (const body of bodies) {
        s.u32(body.length);
        s.raw(body);
      }
    });
    return out.take() as Uint8Array<ArrayBuffer>;
  }
}
