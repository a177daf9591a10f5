/** A machine's network in Node: sockets of this thread's event loop, ports that listen, a capture file. */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import type { MessagePort } from "node:worker_threads";
import { PolicyError } from "../../net/policy.js";
import { PublishError } from "../../net/publish.js";
import type { RemoteMessage } from "../../net/remote-port.js";
import type { NetworkSpec, PlainError, ShareSpec } from "../../vm/device-messages.js";
import { JoinedNetwork } from "../../vm/joined-network.js";
import { type Capture, MachineNetwork, type NetworkPlug } from "../../vm/machine-network.js";
import { openShares, type ShareEvents, shareError } from "./machine-shares.js";
import { NodeBackend } from "./network-sockets.js";

/** The file gets frames at the latest after this time, or this many bytes. */
const CAPTURE_MS = 200;
const CAPTURE_BYTES = 256 << 10;

class NetworkError extends Error implements PlainError {
  override readonly name = "NetworkError";
  readonly about = "network";
  readonly code: string;
  readonly hint: string;
  constructor(code: string, message: string, hint: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** What a user can do something about; undefined: a mistake of ours. */
export function networkError(error: unknown): PlainError | undefined {
  if (error instanceof NetworkError || error instanceof PublishError || error instanceof PolicyError)
    return { about: "network", code: error.code, message: error.message, hint: error.hint };
  return shareError(error);
}

/** Collects what is written; a file that takes no more is told of once. */
class CaptureFile {
  readonly #path: string;
  readonly #onProblem: (text: string) => void;
  readonly #file: number;
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(path: string, onProblem: (text: string) => void) {
    this.#path = path;
    this.#onProblem = onProblem;
    try {
      this.#file = openSync(path, "w");
    } catch (error) {
      throw new NetworkError(
        "bad-capture-file",
        `cannot write the capture file ${path} (${(error as NodeJS.ErrnoException).code})`,
        "name a file in a folder that exists and may be written",
      );
    }
  }
  write(bytes: Uint8Array): void {
    if (this.#isClosed) return;
    this.#chunks.push(bytes);
    this.#bytes += bytes.length;
    if (this.#bytes >= CAPTURE_BYTES) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), CAPTURE_MS);
  }
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const all = Buffer.concat(this.#chunks.splice(0));
    this.#bytes = 0;
    try {
      for (let at = 0; at < all.length; ) at += writeSync(this.#file, all, at);
    } catch (error) {
      this.#onProblem(
        `the capture file ${this.#path} cannot be written (${(error as NodeJS.ErrnoException).code}): it ends here`,
      );
      this.#chunks.length = 0;
      this.close();
    }
  }
  close(): void {
    if (this.#isClosed) return;
    if (this.#chunks.length > 0) this.flush();
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#file);
  }
}

/** A network and what ends it. */
export interface OpenNetwork {
  readonly network: NetworkPlug;
  close(): void;
}

/**
 * Makes the network; its ports listen when this settles.
 * @throws what `networkError` knows
 */
export async function openMachineNetwork(
  spec: NetworkSpec,
  shares: readonly ShareSpec[],
  events: ShareEvents & {
    readonly onWork: () => void;
    readonly cable: MessagePort | undefined;
  },
): Promise<OpenNetwork> {
  const files = openShares(shares, events);
  const file = spec.pcap === undefined ? undefined : new CaptureFile(spec.pcap, events.onProblem);
  const capture: Capture | undefined =
    file === undefined ? undefined : { sink: (bytes) => file.write(bytes), epochNs: Date.now() * 1e6 };
  if (events.cable !== undefined) return joined(events.cable, events.onWork, capture, () => file?.close());
  const network = new MachineNetwork({
    spec,
    backend: new NodeBackend(),
    random32: () => randomBytes(4).readUInt32LE(),
    onWork: events.onWork,
    ...(files === undefined ? {} : { files }),
    ...(capture === undefined ? {} : { capture }),
  });
  const close = (): void => {
    network.close();
    file?.close();
  };
  try {
    for (const port of spec.publish) await network.publish(port);
  } catch (error) {
    close();
    throw error;
  }
  return { network, close };
}

/** The end of a cable whose other end is on the thread of a shared network. */
function joined(
  cable: MessagePort,
  onWork: () => void,
  capture: Capture | undefined,
  closeFile: () => void,
): OpenNetwork {
  const network = new JoinedNetwork({
    send: (message, transfer) => cable.postMessage(message, [...transfer]),
    ...(capture === undefined ? {} : { capture }),
  });
  cable.on("message", (message: RemoteMessage) => {
    network.take(message);
    onWork();
  });
  const close = (): void => {
    network.close();
    cable.close();
    closeFile();
  };
  return { network, close };
}
