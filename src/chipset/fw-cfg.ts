/**
 * QEMU's firmware configuration, as far as a test kernel asks it: how many processors, how much memory (QEMU, docs/specs/fw_cfg).
 * There with `--debug-exit` only: a machine for tests.
 */
import type { AccessWidth, Checkpointed, PortDevice } from "../machine/device.js";

const SELECTOR = 0x510;
const DATA = 0x511;
const Item = { signature: 0, id: 1, ramSize: 3, processors: 5, maxProcessors: 15 } as const;

export interface FwCfgState {
  readonly version: 1;
  readonly item: number;
  readonly offset: number;
}

export class FwCfg implements PortDevice, Checkpointed<FwCfgState> {
  readonly name = "fw-cfg";
  readonly ports = [SELECTOR, DATA] as const;
  readonly stateVersion = 1;
  readonly #items: ReadonlyMap<number, Uint8Array>;
  #item = 0;
  #offset = 0;

  constructor(o: { readonly ramBytes: number; readonly processors: number }) {
    const number = (value: number, bytes: number): Uint8Array =>
      Uint8Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
    this.#items = new Map([
      [Item.signature, new TextEncoder().encode("QEMU")],
      [Item.id, number(1, 4)],
      [Item.ramSize, number(o.ramBytes, 8)],
      [Item.processors, number(o.processors, 2)],
      [Item.maxProcessors, number(o.processors, 2)],
    ]);
  }
  read(port: number, width: AccessWidth): number {
    if (port === SELECTOR || width !== 1) return 0;
    return this.#items.get(this.#item)?.[this.#offset++] ?? 0;
  }
  write(port: number, _width: AccessWidth, value: number): void {
    if (port !== SELECTOR) return;
    this.#item = value & 0x3fff;
    this.#offset = 0;
  }
  save(): FwCfgState {
    return { version: 1, item: this.#item, offset: this.#offset };
  }
  restore(s: FwCfgState): void {
    this.#item = s.item;
    this.#offset = s.offset;
  }
}
