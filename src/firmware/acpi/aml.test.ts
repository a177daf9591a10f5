import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  buffer,
  concat,
  device,
  eisaId,
  integer,
  method,
  name,
  pack,
  path,
  resources,
  ret,
  scope,
  string,
} from "./aml.js";

const hex = (bytes: Uint8Array) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join(" ");

describe("AML", () => {
  it('encodes names as in the specification, "Name Objects Encoding"', () => {
    assert.equal(hex(path("_HID")), "5f 48 49 44");
    assert.equal(hex(path("\\_S5")), "5c 5f 53 35 5f");
    assert.equal(hex(path("\\")), "5c 00");
    assert.equal(hex(path("\\_SB.VMOD")), "5c 2e 5f 53 42 5f 56 4d 4f 44");
    assert.equal(hex(path("A.B.C")), "2f 03 41 5f 5f 5f 42 5f 5f 5f 43 5f 5f 5f");
    for (const bad of ["abcd", "TOOLONG", "1ABC", "A..B"]) assert.throws(() => path(bad), /not an AML name/);
  });

  it("encodes integers in their shortest form", () => {
    assert.equal(hex(integer(0)), "00");
    assert.equal(hex(integer(1)), "01");
    assert.equal(hex(integer(0xff)), "0a ff");
    assert.equal(hex(integer(0x100)), "0b 00 01");
    assert.equal(hex(integer(0x8000_0000)), "0c 00 00 00 80");
    assert.equal(hex(integer(2 ** 40 + 1)), "0e 01 00 00 00 00 01 00 00");
  });

  it("compresses EISA ids", () => {
    assert.equal(hex(eisaId("PNP0501")), "0c 41 d0 05 01");
    assert.throws(() => eisaId("VMBUS"), /not an EISA id/);
  });

  it("encodes package lengths of one to four bytes, counting themselves", () => {
    const header = (n: number) => hex(buffer(new Uint8Array(n)).subarray(0, 5));
    assert.equal(header(60), "11 3f 0a 3c 00");
    assert.equal(header(61), "11 41 04 0a 3d"); // 1 + 2 + 61 = 64 does not fit in one byte, and the second counts too
    assert.equal(header(0x1000 - 6), "11 4f ff 0b fa");
    assert.equal(header(0x1000 - 5), "11 81 00 01 0b");
    assert.equal(header(0x10_0000), "11 c9 00 00 01");
  });

  it("nests", () => {
    assert.equal(hex(name("_UID", integer(2))), "08 5f 55 49 44 0a 02");
    assert.equal(hex(pack(integer(0), integer(5))), "12 05 02 00 0a 05");
    assert.equal(hex(device("DEV0", name("_UID", integer(0)))), "5b 82 0b 44 45 56 30 08 5f 55 49 44 00");
    assert.equal(hex(scope("\\_SB")), "10 06 5c 5f 53 42 5f");
    assert.equal(hex(method("_STA", 0, ret(integer(0xf)))), "14 09 5f 53 54 41 00 a4 0a 0f");
    assert.equal(hex(string("AB")), "0d 41 42 00");
    assert.equal(hex(resources()), "11 05 0a 02 79 00");
    assert.equal(hex(concat()), "");
  });
});
