/** Child of saved-devices.test: restores a machine with its devices and a disk, and prints its digests at the points it is told. */
import { readFileSync } from "node:fs";
import { deserialize } from "node:v8";
import { hashOfFile } from "./hyperv-guest.js";
import { type SavedMachine, steppedFrom } from "./stepped-storage.js";

const [state, disk, from, ...points] = process.argv.slice(2);
const saved = deserialize(readFileSync(state!)) as SavedMachine;
const m = await steppedFrom(disk!, saved);
const digests: string[] = [];
for (const point of points) {
  m.runTo(Number(from) + Number(point));
  digests.push(m.digest());
}
await m.close();
process.stdout.write(JSON.stringify({ digests, console: m.console(), disk: hashOfFile(disk!) }));
