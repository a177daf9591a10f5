/** Child of deterministic.test: restores a machine and prints its digests at the points it is told. */
import { readFileSync } from "node:fs";
import { deserialize } from "node:v8";
import type { PartitionState } from "../../src/vm/partition.js";
import { bootDeterministic } from "./deterministic-machine.js";

const [file, stride, from, to] = process.argv.slice(2);
const { state, console: text } = deserialize(readFileSync(file!)) as { state: PartitionState; console: string };
const m = await bootDeterministic({ saved: state, console: text });
const digests: string[] = [];
for (let i = Number(from); i <= Number(to); i++) {
  m.runTo(i * Number(stride));
  digests.push(m.digest());
}
process.stdout.write(JSON.stringify({ digests, console: m.console() }));
