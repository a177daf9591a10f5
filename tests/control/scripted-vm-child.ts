/**
 * A machine that is a script under a name, in a process of its own: verbs.test.ts. It does what is asked of it never, and tells its
 * parent that it was asked. Arguments: name.
 */

import { NamedMachine } from "../../src/cli/named/named-machine.js";
import { ScriptedMachine } from "../../src/control/scripted-machine.js";

const [name = ""] = process.argv.slice(2);
const machine = new ScriptedMachine();
const asked = (what: string) => (): Promise<never> => {
  process.send?.(what);
  return new Promise(() => {});
};
machine.integration.status = asked("status");
machine.spawn = asked("exec");
machine.copyIn = asked("cp");
machine.copyOut = asked("cp");
machine.network.publish = asked("publish");
machine.network.published = asked("unpublish");
machine.integration.shutdown = asked("stop");
const named = NamedMachine.claim(name, { guest: "scripted", memoryMiB: 1 });
await named.serve(machine);
named.isUp();
machine.print("the last line of the console\n");
const { onOutput } = machine;
machine.onOutput = (serial, listener) => {
  process.send?.("console");
  return onOutput.call(machine, serial, listener);
};
process.send?.("ready");
process.on("disconnect", () => process.exit());
setInterval(() => {}, 1000);
