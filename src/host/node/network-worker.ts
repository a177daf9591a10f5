/** The thread of a network that machines share: its switch and router, their sockets, cables to the machines' threads. */
import { randomBytes } from "node:crypto";
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import type { NatConfig } from "../../net/config.js";
import { NatConfigError } from "../../net/config.js";
import type { RemoteMessage, RemotePort } from "../../net/remote-port.js";
import type { PlainError } from "../../vm/device-messages.js";
import { SharedNetwork } from "../../vm/shared-network.js";
import { networkError } from "./machine-network.js";
import { type NetworkAnswer, STARTED, type ToNetwork } from "./network-messages.js";
import { NodeBackend } from "./network-sockets.js";

const main = parentPort!;
const answer = (a: NetworkAnswer): void => main.postMessage(a);
const clock = { now: () => Number(process.hrtime.bigint()) };
let timer: NodeJS.Timeout | undefined;
let isTurnDue = false;

function plain(error: unknown): PlainError {
  if (error instanceof NatConfigError)
    return { about: "network", code: "bad-option", message: error.message, hint: "name a network such as 10.0.2.0/24" };
  return (
    networkError(error) ?? {
      code: "invariant",
      message: error instanceof Error ? (error.stack ?? error.message) : String(error),
      hint: "",
    }
  );
}

function start(config: NatConfig): SharedNetwork {
  const network = new SharedNetwork({
    config,
    backend: new NodeBackend(),
    clock,
    random32: () => randomBytes(4).readUInt32LE(),
    onDeadline: () => turnSoon(network),
  });
  return network;
}
/** What sockets and timers bring goes out together, behind what the event loop has at hand. */
function turnSoon(network: SharedNetwork): void {
  if (isTurnDue) return;
  isTurnDue = true;
  setImmediate(() => {
    isTurnDue = false;
    turn(network);
  });
}
function turn(network: SharedNetwork): void {
  const now = clock.now();
  if (network.nextDeadline() <= now) network.runDue(now);
  network.flush();
  clearTimeout(timer);
  const next = network.nextDeadline();
  if (next === Number.POSITIVE_INFINITY) return;
  timer = setTimeout(() => turn(network), Math.min(Math.max(1, Math.ceil((next - now) / 1e6)), 2 ** 31 - 1));
}
function plug(network: SharedNetwork, port: MessagePort): void {
  let remote: RemotePort | undefined;
  remote = network.plug((message, transfer) => port.postMessage(message, [...transfer]));
  port.on("message", (message: RemoteMessage) => {
    if (message.type === "out") {
      leave();
      return;
    }
    remote?.take(message);
    turnSoon(network);
  });
  const leave = (): void => {
    if (remote !== undefined) network.unplug(remote);
    remote = undefined;
    port.close();
  };
  port.on("close", leave);
}
function receive(network: SharedNetwork, m: ToNetwork): void {
  switch (m.type) {
    case "plug":
      plug(network, m.port);
      break;
    case "publish":
      network.publish(m.spec).then(
        (port) => answer({ id: m.id, port }),
        (error: unknown) => answer({ id: m.id, error: plain(error) }),
      );
      break;
    case "unpublish":
      answer({ id: m.id, done: network.unpublish(m.port) });
      break;
    case "allow":
      try {
        network.setAllowed(m.list);
        answer({ id: m.id });
      } catch (error) {
        answer({ id: m.id, error: plain(error) });
      }
      break;
    case "status":
      answer({ id: m.id, status: network.status() });
      break;
    case "close":
      network.close();
      main.close();
      clearTimeout(timer);
      // cables that are still in
      setImmediate(() => process.exit(0));
      break;
  }
}

try {
  const network = start(workerData as NatConfig);
  main.on("message", (m: ToNetwork) => receive(network, m));
  answer({ id: STARTED });
} catch (error) {
  answer({ id: STARTED, error: plain(error) });
}
