import assert from "node:assert/strict";
import { it } from "node:test";
import type { NetworkDeviceStatus } from "../vm/index.js";
import { networkLines } from "./network-status.js";

const ADAPTER: NetworkDeviceStatus = {
  number: 0,
  mac: "00:15:5d:01:02:03",
  protocol: "6.1",
  isReady: true,
  link: true,
  mtu: 1500,
  channels: 1,
  receiveSections: 100,
  freeReceiveSections: 90,
  sentFrames: 12,
  sentBytes: 12_345,
  receivedFrames: 34,
  receivedBytes: 56_000_000,
  drops: { filtered: 2, tooLong: 0 },
  nat: undefined,
};

it("the status tells of adapter, leases, ports and connections", () => {
  assert.deepEqual(networkLines(ADAPTER), [
    "network 00:15:5d:01:02:03 · NVSP 6.1 · link up · sent 12 frames, 12 kB · received 34, 56 MB · lost 2 filtered",
  ]);
  assert.deepEqual(networkLines({ ...ADAPTER, protocol: "none", link: false, drops: {} }), [
    "network 00:15:5d:01:02:03 · no driver · not plugged in · sent 12 frames, 12 kB · received 34, 56 MB",
  ]);
  const flow = {
    protocol: "tcp",
    direction: "out",
    guest: "10.0.2.15:1",
    remote: "192.0.2.1:80",
    state: "open",
    bytesToHost: 5,
    bytesToGuest: 6,
  } as const;
  const lines = networkLines({
    ...ADAPTER,
    nat: {
      counters: { tcpOpened: 3, tcpFailed: 1, udpOpened: 2, dnsQueries: 4, refused: 5 },
      dropped: { checksum: 7 },
      flows: Array.from({ length: 14 }, () => flow),
      leases: [{ address: "10.0.2.15", mac: "00:15:5d:01:02:03", hostName: "guest" }],
      published: [
        { id: 1, protocol: "tcp", host: "127.0.0.1:8080", hostPort: 8080, guest: "10.0.2.15:80", connections: 9 },
      ],
      refused: [{ protocol: "dns", guest: "10.0.2.15", to: "example.org" }],
    },
  });
  assert.deepEqual(lines.slice(1, 6), [
    "  10.0.2.15 leased to 00:15:5d:01:02:03 (guest)",
    "  127.0.0.1:8080 leads to 10.0.2.15:80 (tcp, 9 so far)",
    "  router: 3 TCP connections, 1 failed · 2 UDP flows · 4 names asked for · 5 refused by the allow list · packets given up: 7 checksum",
    "  refused: dns example.org",
    "  tcp 10.0.2.15:1 → 192.0.2.1:80 open, out 5 B, in 6 B",
  ]);
  assert.equal(lines.at(-1), "  … 2 more");
});
