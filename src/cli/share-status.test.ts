/** What people are told of shared folders: on a console's status screen. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Vm } from "../vm/index.js";
import { status } from "./run-report.js";

describe("the console's status", () => {
  const screen = (shares: Vm["shares"]): Promise<string> =>
    status({
      shares,
      uptimeNs: 2e9,
      stats: async () => ({ instructions: 4e9, timeNs: 2e9, haltedNs: 0, counters: {} }),
      network: { status: () => Promise.reject(new Error("there is none")) },
    } as unknown as Vm);
  const share = { directory: "/here/project", mountPoint: "/mnt/project", readOnly: false, cacheSeconds: 10 };

  it("names every share, where it is, and whether it can be written", async () => {
    const read = { ...share, mountPoint: "/data", readOnly: true };
    assert.equal(
      await screen([share, read]),
      "up 2.0 s · 4000 M instructions · 2000 MIPS over all\n" +
        "share  /mnt/project is /here/project\nshare  /data is /here/project, read only",
    );
    assert.doesNotMatch(await screen([]), /share/);
  });
});
