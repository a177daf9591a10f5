import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { PortBus } from "../machine/bus.js";
import { DebugExit } from "./debug-exit.js";
import { RESET_PORT, RESET_VALUE, ResetPorts } from "./reset.js";

describe("reset ports", () => {
  it("reset the machine in the three ways of a PC, and in no other", () => {
    let resets = 0;
    const bus = new PortBus();
    bus.attach(new ResetPorts(() => resets++));
    for (const [port, value] of [
      [RESET_PORT, 2],
      [0x64, 0xd1],
      [0x92, 2],
      [0x80, 0xfe],
      [0x61, 0xff],
    ] as const) {
      bus.write(port, 1, value);
    }
    assert.equal(resets, 0);
    for (const [port, value] of [
      [RESET_PORT, RESET_VALUE],
      [RESET_PORT, 0xe],
      [0x64, 0xfe],
      [0x92, 1],
    ] as const) {
      bus.write(port, 1, value);
    }
    assert.equal(resets, 4);
  });

  it("read as if nothing were wrong: no keyboard controller, no NMI reason, A20 on", () => {
    const bus = new PortBus();
    bus.attach(new ResetPorts(() => {}));
    assert.equal(bus.read(0x64, 1), 0xff);
    assert.equal(bus.read(0x61, 1) & 0xc0, 0);
    assert.equal(bus.read(0x92, 1), 2);
  });
});

it("debug exit makes an odd exit code of the value", () => {
  const codes: number[] = [];
  const bus = new PortBus();
  bus.attach(new DebugExit((code) => codes.push(code)));
  bus.write(0xf4, 1, 0);
  bus.write(0xf4, 4, 0x10);
  bus.write(0xf4, 4, 0xffff_ffff);
  assert.deepEqual(codes, [1, 33, 255]);
});
