import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type NetworkOptions, type NetworkSituation, networkSpec } from "./vm-network.js";

const PLAIN: NetworkSituation = {
  hasService: true,
  deterministic: false,
  number: 0,
  savedMac: undefined,
  firstDisk: undefined,
  random: () => 0x12345678,
};
const of = (o?: NetworkOptions, more: Partial<NetworkSituation> = {}) => networkSpec(o, { ...PLAIN, ...more });

describe("the network's options", () => {
  it("are a plugged-in adapter of Hyper-V's range by default", () => {
    assert.deepEqual(of(), { mac: "00:15:5d:34:56:78", isPluggedIn: true, publish: [] });
  });
  it("give an address that stays: the saved one, or that of the disk's name", () => {
    assert.equal(of({}, { savedMac: "00:15:5d:01:02:03" })!.mac, "00:15:5d:01:02:03");
    const disk = of({}, { firstDisk: "a.raw" })!.mac;
    assert.match(disk, /^00:15:5d:/);
    assert.equal(of({}, { firstDisk: "a.raw", random: () => 1 })!.mac, disk);
    assert.notEqual(of({}, { firstDisk: "b.raw" })!.mac, disk);
    assert.equal(of({ mac: "02-00-00-AA-bb-01" }, { savedMac: "00:15:5d:01:02:03" })!.mac, "02:00:00:aa:bb:01");
  });
  it("are none without the service, and unplugged in a repeatable machine", () => {
    assert.equal(of(undefined, { hasService: false }), undefined);
    assert.equal(of(undefined, { deterministic: true })!.isPluggedIn, false);
    assert.equal(of({ mode: "none" })!.isPluggedIn, false);
  });
  it("take ports as texts and as objects", () => {
    assert.deepEqual(of({ publish: ["8080:80", { protocol: "udp", hostPort: 53, guestPort: 5353 }] })!.publish, [
      { protocol: "tcp", hostPort: 8080, guestPort: 80 },
      { protocol: "udp", hostPort: 53, guestPort: 5353 },
    ]);
  });
  it("are refused where they make no sense, with what to do", () => {
    const bad = { code: "bad-option" };
    assert.throws(() => of({ mac: "01:00:00:00:00:00" }), bad);
    assert.throws(() => of({ mac: "nonsense" }), bad);
    assert.throws(() => of({ publish: ["80"] }), bad);
    assert.throws(() => of({ allow: ["1.2.3"] }), bad);
    assert.throws(() => of({ mode: "none", publish: ["80:80"] }), bad);
    assert.throws(() => of({}, { hasService: false }), bad);
    assert.throws(() => of({}, { deterministic: true }), bad);
  });
});
