/** A partition (processor, local APIC, clock) with the tables and the program of a SystemMachine: for what happens between instructions. */
import { generateInterpreter } from "../../src/cpu/interpreter/generator.js";
import { FIRST_BLOCK, Vp } from "../../src/cpu/layout.js";
import { Partition, type StepResult } from "../../src/vm/partition.js";
import { loadRuntime } from "./bare-machine.js";
import { SystemMachine } from "./system-machine.js";

/** Where the #DB handler writes what it finds: RIP and DR6, 16 bytes a trap. */
export const LOG = 0x100000;
export const DB_HANDLER = 0x18000;
const INTERRUPT_HANDLER = 0x18100;
/** The vector that `interrupt` requests; its handler counts in R14 and keeps the interrupted RIP in R13. */
export const VECTOR = 0x60;

let interpreter: WebAssembly.Module | undefined;

export class PartitionMachine {
  readonly image = new SystemMachine();
  partition: Partition;

  constructor() {
    this.partition = this.#create();
    const { image } = this;
    image.gate(1, { offset: DB_HANDLER });
    image.gate(VECTOR, { offset: INTERRUPT_HANDLER });
    image.load(
      "push rax\nmov rax, [rsp + 8]\nmov [r15], rax\nmov rax, dr6\nmov [r15 + 8], rax\nadd r15, 16\nxor eax, eax\nmov dr6, rax\npop rax\niretq",
      DB_HANDLER,
    );
    image.load(
      "inc r14\nmov r13, [rsp]\npush rax\npush rcx\npush rdx\nmov ecx, 0x80b\nxor eax, eax\nxor edx, edx\nwrmsr\npop rdx\npop rcx\npop rax\niretq",
      INTERRUPT_HANDLER,
    );
  }
  #create(): Partition {
    interpreter ??= new WebAssembly.Module(generateInterpreter(FIRST_BLOCK, true).bytes);
    const sink = { onOutput: (): void => {}, onInputSpace: (): void => {} };
    const made = new Partition({
      ramBytes: 4 << 20,
      features: new Set(),
      modules: { runtime: loadRuntime(), interpreter },
      shared: true,
      clock: { now: () => 0 },
      entropy: { next: () => 1, state: undefined, restore: () => {} },
      wallClockSeconds: 0,
      serial: [sink, sink, sink, sink],
    });
    made.msrs.write(0x1b, 0xfee00d00, 0); // x2APIC
    made.msrs.write(0x80f, 0x1ff, 0);
    return made;
  }
  /** A new partition with the image's RAM and registers. */
  start(at: number): void {
    this.partition = this.#create();
    const { vp } = this.partition;
    const from = this.image.vp;
    from.setRegister(Vp.rip, at);
    vp.ram.set(from.ram);
    vp.restoreRegisters(from.bytes.slice(from.base, from.base + Vp.apic));
  }
  interrupt(): void {
    this.partition.msrs.write(0x83f, VECTOR, 0);
  }
  /** Steps until HLT waits. */
  run(step: () => StepResult = () => this.partition.step(1000)): void {
    for (let i = 0; i < 5000; i++) {
      const result = step();
      if (result === "halted") return;
      if (result !== "running") throw new Error(`${result}: ${this.partition.describe()}`);
    }
    throw new Error(`no end: ${this.partition.describe()}`);
  }
  register(n: number): number {
    return Number(this.partition.vp.register64(Vp.gpr + n * 8));
  }
  /** RIP and DR6 of each #DB so far. */
  log(): { readonly rip: number; readonly dr6: number }[] {
    const { ram } = this.partition.vp;
    const v = new DataView(ram.buffer, ram.byteOffset, ram.byteLength);
    const log: { rip: number; dr6: number }[] = [];
    for (let at = LOG; at < this.register(15); at += 16)
      log.push({ rip: Number(v.getBigUint64(at, true)), dr6: v.getUint32(at + 8, true) });
    return log;
  }
  /** RIPs of the traps so far; each has DR6.BS. */
  traps(): number[] {
    return this.log().map(({ rip, dr6 }) => {
      if (dr6 !== 0xffff4ff0) throw new Error(`DR6 is ${dr6.toString(16)}`);
      return rip;
    });
  }
}
