/** A real guest's network on a wire that loses, doubles, reorders and spoils frames. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, it } from "node:test";
import type { Vm } from "../../src/vm/index.js";
import { startDebian } from "./guests.js";
import { assertQuiet, BOOT_MS, eventually, sh, sha256 } from "./hyperv-guest.js";
import { dial, listening, perl, TAKE } from "./socket-scripts.js";

const MIB = 1 << 20;
/** Answers the end of what it is sent with what `answer` makes of it. */
const answering = (answer: (all: Buffer) => string): Promise<number> =>
  listening((socket) => {
    const got: Buffer[] = [];
    socket.on("data", (bytes) => got.push(bytes));
    socket.on("end", () => socket.end(answer(Buffer.concat(got))));
  });

describe("a network that loses, doubles, reorders and spoils frames", () => {
  let vm: Vm;
  before(async () => {
    const impairments = { loss: 0.03, duplicate: 0.03, reorder: 0.1, reorderNs: 2e6, corrupt: 0.01 };
    vm = await startDebian({ network: { impairments } });
    // its address comes over the same wire: where two attempts are lost, the next is 20 s later
    await sh(vm, "until grep -q '^eth0.00000000' /proc/net/route; do sleep 0.2; done", BOOT_MS);
  });
  after(() => vm?.kill());

  it("brings 2 MB to the guest, whole", async () => {
    const data = randomBytes(2 * MIB);
    const port = await listening((socket) => socket.end(data));
    const got = await sh(vm, `${perl(`${dial(port)}; ${TAKE}`)} | sha256sum`, BOOT_MS);
    assert.match(got, new RegExp(`^${sha256(data)} `));
  });

  it("brings 2 MB to the host, whole", async () => {
    const port = await answering(sha256);
    const send = `${dial(port)}; while ($n = sysread(STDIN, $b, 65536)) { $o = 0; $o += syswrite(S, $b, $n - $o, $o) while $o < $n } shutdown(S, 1); ${TAKE}`;
    const said = await sh(
      vm,
      `head -c ${2 * MIB} /dev/urandom >/tmp/sent; ${perl(send)} </tmp/sent; echo; sha256sum </tmp/sent`,
      BOOT_MS,
    );
    const [host, guest] = said.split("\n");
    assert.equal(host, guest?.split(" ")[0]);
  });

  it("did go wrong, and the guest and the router saw it", async () => {
    // a connection is counted when nothing of it can come any more
    await eventually("the router's retransmissions", async () => {
      const { counters, dropped } = (await vm.network.status())!.nat!;
      return (counters.tcpRetransmissions! > 0 && dropped.checksum! > 0) || undefined;
    });
    // Tcp: … RetransSegs is the 12th number
    assert.ok(Number(await sh(vm, `awk '/^Tcp: [0-9]/ { print $13 }' /proc/net/snmp`)) > 0);
    await assertQuiet(vm);
  });
});
