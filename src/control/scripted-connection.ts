/** A client and the server of a machine that is a script, on two ends of one connection: for tests. */
import { VmError } from "../vm/vm-error.js";
import { ControlClient } from "./client.js";
import type { Transport } from "./connection.js";
import { type ScriptedHost, ScriptedMachine, scriptedHost } from "./scripted-machine.js";
import { ControlServer } from "./server.js";

export interface Setup {
  readonly machine: ScriptedMachine;
  readonly host: ScriptedHost;
  readonly server: ControlServer;
  readonly client: ControlClient;
  /** The process at the other end is gone. */
  readonly die: () => void;
}
export function setUp(): Setup {
  const machine = new ScriptedMachine();
  const host = scriptedHost();
  const server = new ControlServer(machine, { guest: "debian:12", memoryMiB: 256 }, host);
  let isDead = false;
  const later = (f: () => void): void => void setImmediate(() => isDead || f());
  const link: { toClient?: (b: Uint8Array) => void; toServer?: (b: Uint8Array) => void } = {};
  const die = (): void => {
    if (isDead) return;
    isDead = true;
    client.gone();
    connection.closed();
  };
  const transport = (send: (b: Uint8Array) => void): Transport => ({
    send: (bytes) => later(() => send(bytes)),
    end: () => later(die),
    destroy: () => later(die),
  });
  const connection = server.accept(transport((b) => link.toClient!(b)));
  const client: ControlClient = new ControlClient(
    transport((b) => link.toServer!(b)),
    {
      setTimer: (ms, fire) => host.setTimer(ms, fire),
      explain: async (doing) => new VmError("ended", `the machine's process is gone, ${doing}`),
    },
  );
  link.toClient = (b) => client.received(b);
  link.toServer = (b) => connection.received(b);
  return { machine, host, server, client, die };
}
export const turns = async (n = 20): Promise<void> => {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
};
export const isVmError =
  (code: string, message = /./) =>
  (e: unknown): boolean =>
    e instanceof VmError && e.code === code && message.test(e.message);
