import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { AccessWidth } from "../machine/device.js";
import { INPUT_QUEUE_BYTES, Uart } from "./uart.js";

const BASE = 0x3f8;
const [DATA, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 2, 3, 4, 5, 6, 7];
/** DTR, RTS, OUT2: what a driver sets when it opens the port. */
const OPEN = 0xb;

function machine(holdInput = true) {
  const m = {
    output: [] as number[],
    /** Rises of the interrupt pin: what an edge-triggered input sees. */
    edges: 0,
    line: false,
    space: 0,
    uart: undefined as unknown as Uart,
    in: (r: number) => m.uart.read(BASE + r, 1),
    out: (r: number, value: number) => m.uart.write(BASE + r, 1, value),
  };
  m.uart = new Uart({
    name: "com1",
    base: BASE,
    irq: {
      set(level) {
        if (level && !m.line) m.edges++;
        m.line = level;
      },
    },
    onOutput: (byte) => m.output.push(byte),
    onInputSpace: () => m.space++,
    holdInput,
  });
  return m;
}

const bytes = (text: string) => new TextEncoder().encode(text);

describe("16550A as Linux's 8250 driver finds it", () => {
  it("passes the probe: IER, loopback, FIFO and the start-up tests of its interrupts", () => {
    const m = machine();
    // The interrupt enable register exists and has four bits.
    m.out(IER, 0);
    assert.equal(m.in(IER), 0);
    m.out(IER, 0xf);
    assert.equal(m.in(IER), 0xf);
    m.out(IER, 0);
    // Loopback: OUT2 and RTS come back as DCD and CTS.
    const mcr = m.in(MCR);
    m.out(MCR, 0x1a);
    assert.equal(m.in(MSR) & 0xf0, 0x90);
    m.out(MCR, mcr);
    // No extended feature register; FIFOs work: a 16550A.
    m.out(LCR, 0xbf);
    assert.notEqual(m.in(IIR), 0);
    m.out(LCR, 0);
    m.out(FCR, 1);
    assert.equal(m.in(IIR) >> 6, 3);
    // Not one of the compatible chips: divisor latch readable, no 64-byte FIFO, UUE bit of IER does not stick.
    m.out(IER, 0x40);
    assert.equal(m.in(IER), 0);
    m.out(SCR, 0x5a);
    assert.equal(m.in(SCR), 0x5a);
    // Start-up: THRE is announced every time its interrupt is switched on, and cleared by reading it.
    m.out(FCR, 7);
    m.out(FCR, 0);
    for (let i = 0; i < 2; i++) {
      m.out(IER, 2);
      assert.equal(m.in(IIR) & 0xf, 2);
      assert.equal(m.in(IIR) & 0xf, 1);
      m.out(IER, 0);
    }
    m.out(IER, 2);
    assert.equal(m.in(LSR) & 0x60, 0x60);
    assert.equal(m.in(IIR) & 1, 0);
    m.out(IER, 0);
    assert.deepEqual(m.output, []);
  });

  it("keeps the divisor behind DLAB", () => {
    const m = machine();
    m.out(LCR, 0x83);
    m.out(DATA, 1);
    m.out(IER, 2);
    assert.deepEqual([m.in(DATA), m.in(IER)], [1, 2]);
    m.out(LCR, 3);
    assert.deepEqual([m.in(DATA), m.in(IER), m.in(LCR)], [0, 0, 3]);
    assert.deepEqual(m.output, []);
  });

  it("loops 256 characters back in FIFO depths and says when one was lost", () => {
    const m = machine();
    m.out(FCR, 1);
    m.out(MCR, 0x10);
    for (let i = 0; i < 16; i++) m.out(DATA, i);
    assert.equal(m.in(LSR), 0x61);
    m.out(DATA, 16);
    assert.equal(m.in(LSR), 0x63);
    assert.equal(m.in(LSR), 0x61);
    for (let i = 0; i < 16; i++) assert.equal(m.in(DATA), i);
    assert.equal(m.in(LSR), 0x60);
    assert.deepEqual(m.output, []);
  });

  it("transmits all of a megabyte, a THRE edge for each batch, as the interrupt handler does it", () => {
    const m = machine();
    const total = 0x10_0000;
    m.out(FCR, 1);
    m.out(MCR, OPEN);
    m.out(IER, 2);
    let sent = 0;
    let handled = 0;
    while (m.edges > handled) {
      handled = m.edges;
      while ((m.in(IIR) & 1) === 0 && sent < total) for (let i = 0; i < 16; i++) m.out(DATA, sent++ & 0xff);
    }
    assert.equal(m.output.length, total);
    assert.ok(m.output.every((byte, i) => byte === (i & 0xff)));
  });

  it("gates its interrupt by OUT2 and by loopback", () => {
    const m = machine();
    m.out(IER, 2);
    assert.equal(m.line, false);
    m.out(MCR, 8);
    assert.equal(m.line, true);
    m.out(MCR, 0x18);
    assert.equal(m.line, false);
  });

  it("shows the most urgent source first", () => {
    const m = machine();
    m.out(FCR, 1);
    m.out(IER, 0xf);
    m.out(MCR, 0x1f);
    for (let i = 0; i < 17; i++) m.out(DATA, i);
    m.out(MCR, OPEN); // RI falls: a modem event
    assert.equal(m.in(IIR), 0xc6);
    assert.equal(m.in(LSR), 0x63);
    assert.equal(m.in(IIR), 0xc4);
    for (let i = 0; i < 16; i++) m.in(DATA);
    assert.equal(m.in(IIR), 0xc2);
    assert.equal(m.in(IIR), 0xc0);
    assert.equal(m.in(MSR), 0xb4);
    assert.equal(m.in(IIR), 0xc1);
    assert.equal(m.line, false);
  });
});

describe("input", () => {
  it("raises at the trigger level, and by time-out below it", () => {
    const m = machine();
    m.out(FCR, 0x81); // 8 characters
    m.out(MCR, OPEN);
    m.out(IER, 1);
    m.uart.receive(bytes("1234567"));
    assert.equal(m.in(IIR), 0xcc);
    m.uart.receive(bytes("8"));
    assert.equal(m.in(IIR), 0xc4);
    assert.equal(m.edges, 1);
    for (const c of bytes("12345678")) assert.equal(m.in(DATA), c);
    assert.equal(m.in(IIR), 0xc1);
    assert.equal(m.line, false);
  });

  it("waits for the guest to open the port, and survives its FIFO reset", () => {
    const m = machine();
    assert.equal(m.uart.receive(bytes("early")), 5);
    assert.equal(m.in(LSR) & 1, 0);
    m.out(FCR, 7);
    m.in(DATA);
    m.out(MCR, OPEN);
    for (const c of bytes("early")) {
      assert.equal(m.in(LSR) & 1, 1);
      assert.equal(m.in(DATA), c);
    }
    assert.equal(m.in(LSR) & 1, 0);
  });

  it("does not wait where it was told not to", () => {
    const m = machine(false);
    m.uart.receive(bytes("x"));
    assert.equal(m.in(DATA), 0x78);
  });

  it("takes what fits, says how much, and calls when there is room", () => {
    const m = machine();
    const data = Uint8Array.from({ length: 3 * INPUT_QUEUE_BYTES }, (_, i) => i * 7);
    m.out(FCR, 1);
    let at = m.uart.receive(data);
    assert.equal(at, INPUT_QUEUE_BYTES);
    assert.equal(m.uart.receive(data.subarray(at)), 0);
    m.out(MCR, OPEN);
    const got: number[] = [];
    while ((m.in(LSR) & 1) !== 0) {
      got.push(m.in(DATA));
      if (m.space > 0 && at < data.length) {
        m.space = 0;
        at += m.uart.receive(data.subarray(at));
      }
    }
    assert.deepEqual(Uint8Array.from(got), data);
    assert.equal(m.space, 0);
  });
});

describe("any guest", () => {
  const step = fc.record({
    what: fc.constantFrom("read", "write", "receive"),
    port: fc.nat(7),
    width: fc.constantFrom<AccessWidth>(1, 2, 4),
    value: fc.oneof(fc.nat(255), fc.integer()),
  });
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  function perform(m: ReturnType<typeof machine>, s: Step): unknown[] {
    let got = 0;
    if (s.what === "read") got = m.uart.read(BASE + s.port, s.width);
    if (s.what === "write") m.uart.write(BASE + s.port, s.width, s.value);
    if (s.what === "receive") got = m.uart.receive(Uint8Array.of(s.value, s.value >> 8));
    assert.ok(got >= 0 && got <= 255);
    return [got, m.line, ...m.output.splice(0)];
  }

  it("cannot make it throw, and it goes on the same after save and restore", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.array(step, { maxLength: 60 }), (a, b) => {
        const first = machine();
        for (const s of a) perform(first, s);
        const second = machine();
        second.uart.restore(structuredClone(first.uart.save()));
        assert.equal(second.line, first.line);
        for (const s of b) assert.deepEqual(perform(second, s), perform(first, s));
        assert.deepEqual(second.uart.save(), first.uart.save());
      }),
    );
  });
});
