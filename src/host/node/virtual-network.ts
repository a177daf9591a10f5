/** A network that the machines of this process share, as an API. */
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { PublishError, type PublishedPort, type PublishSpec, parsePublish } from "../../net/publish.js";
import type { SharedNetworkStatus } from "../../vm/device-messages.js";
import { type JoinableNetwork, VmError } from "../../vm/index.js";
import { ENGINE_FILES } from "./engine-files.js";
import { type NetworkAnswer, STARTED, type ToNetwork } from "./network-messages.js";

/** How a shared network is made. */
export interface VirtualNetworkOptions {
  /** Addresses of the guests, as "10.0.2.0/24" (default), at least a /28. */
  readonly ipv4?: string;
  /** A /64 of the guests, or false: no IPv6. */
  readonly ipv6?: string | false;
  /** Domain of the guests' names. Default "enlighten.internal". */
  readonly domain?: string;
  /** What guests may reach outside, as `NetworkOptions.allow`; each other they always reach. */
  readonly allow?: readonly string[];
}

/**
 * Machines that are made with `network: { join: network }` reach each other by address and by name (NAME.enlighten.internal, if they
 * told one by DHCP), this host, and what it reaches. It lives until `close`; machines that are still on it lose their link then.
 */
export class VirtualNetwork implements JoinableNetwork, AsyncDisposable {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (answer: NetworkAnswer) => void>();
  #nextId = STARTED + 1;
  #isClosed = false;

  /** See `createNetwork`. */
  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.on("message", (answer: NetworkAnswer) => {
      const done = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      done?.(answer);
    });
    const fail = (message: string): void => {
      this.#isClosed = true;
      for (const done of this.#waiting.values())
        done({ id: 0, error: { about: "network", code: "failed", message, hint: "" } });
      this.#waiting.clear();
    };
    worker.on("error", (e: unknown) => fail(e instanceof Error ? (e.stack ?? e.message) : String(e)));
    worker.on("exit", () => fail("the network has been closed"));
  }
  /** @throws VmError "bad-option" */
  static async create(options: VirtualNetworkOptions): Promise<VirtualNetwork> {
    const worker = new Worker(ENGINE_FILES.networkWorker, { name: "network", workerData: options });
    const network = new VirtualNetwork(worker);
    try {
      await network.#answer(STARTED);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
    // a network alone does not keep the process: its machines do
    worker.unref();
    return network;
  }
  async #answer(id: number): Promise<NetworkAnswer> {
    const answer = await new Promise<NetworkAnswer>((resolve) => void this.#waiting.set(id, resolve));
    if (answer.error === undefined) return answer;
    const { code, message, hint } = answer.error;
    throw new VmError(code === "bad-option" || code === "port-in-use" ? code : "network", message, hint);
  }
  async #ask(message: (id: number) => ToNetwork): Promise<NetworkAnswer> {
    if (this.#isClosed) throw new VmError("ended", "the network has been closed", "make another one");
    const id = this.#nextId++;
    const answer = this.#answer(id);
    this.#worker.ref();
    this.#worker.postMessage(message(id));
    try {
      return await answer;
    } finally {
      if (this.#waiting.size === 0) this.#worker.unref();
    }
  }
  /** A cable for one machine: `createVm` asks for it. */
  plug(): MessagePort {
    if (this.#isClosed) throw new VmError("ended", "the network has been closed", "make another one");
    const { port1, port2 } = new MessageChannel();
    const message: ToNetwork = { type: "plug", port: port1 };
    this.#worker.postMessage(message, [port1]);
    return port2;
  }
  /**
   * Makes a port of the host lead to one of a guest: the first that has an address, unless `guestAddress` says which.
   * @throws VmError "port-in-use", "bad-option", "network"
   */
  async publish(spec: string | PublishSpec): Promise<PublishedPort> {
    let parsed: PublishSpec;
    try {
      parsed = typeof spec === "string" ? parsePublish(spec) : spec;
    } catch (error) {
      if (error instanceof PublishError) throw new VmError("bad-option", error.message, error.hint);
      throw error;
    }
    return (await this.#ask((id) => ({ type: "publish", id, spec: parsed }))).port!;
  }
  /** @returns false if there was no such port */
  async unpublish(port: PublishedPort | number): Promise<boolean> {
    const which = typeof port === "number" ? port : port.id;
    return (await this.#ask((id) => ({ type: "unpublish", id, port: which }))).done!;
  }
  /** Replaces the allow list (undefined: everything); connections that are open stay. */
  async setAllowed(list: readonly string[] | undefined): Promise<void> {
    await this.#ask((id) => ({ type: "allow", id, list }));
  }
  /** Machines, frames, router. */
  async status(): Promise<SharedNetworkStatus> {
    return (await this.#ask((id) => ({ type: "status", id }))).status!;
  }
  /** Ends it. Published ports listen no more, connections break. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const ended = new Promise<void>((resolve) => this.#worker.once("exit", () => resolve()));
    this.#worker.ref();
    const message: ToNetwork = { type: "close" };
    this.#worker.postMessage(message);
    await ended;
  }
  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
/** Makes a network for machines of this process. @throws VmError "bad-option" */
export const createNetwork = (options: VirtualNetworkOptions = {}): Promise<VirtualNetwork> =>
  VirtualNetwork.create(options);
