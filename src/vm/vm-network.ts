/** The network of a machine as an API: ports of the host that lead to the guest, what the guest may reach, counters. */
import { formatMac, parseMac } from "../net/address.js";
import { EgressPolicy } from "../net/policy.js";
import { PublishError, type PublishedPort, type PublishSpec, parsePublish } from "../net/publish.js";
import type { Impairments } from "../net/switch.js";
import type { FromDevices, NetworkDeviceStatus, NetworkSpec, PlainError, ToDevices } from "./device-messages.js";
import { fromPlain, type Integration } from "./integration.js";
import { MAX_ADAPTERS } from "./machine-adapters.js";
import { networkFailure } from "./network-failure.js";
import { VmError } from "./vm-error.js";
import type { WaitOptions } from "./wait.js";

/** A network that machines share. */
export interface JoinableNetwork {
  /** A cable for one more machine, as the platform has them. */
  plug(): unknown;
}

/** The network adapter, and what it is plugged in to. */
export interface NetworkOptions {
  /**
   * "nat" (default): a switch and a router in this process, which needs no privileges. The guest gets an address by DHCP, reaches
   * what this host reaches, and the host itself as host.enlighten.internal. "none": there is no adapter.
   */
  readonly mode?: "nat" | "none";
  /**
   * What the guest may reach, and no more: HOST[:PORT], NETWORK/BITS[:PORT], DOMAIN[:PORT], *.DOMAIN[:PORT], or "none".
   * Default: everything that is not link-local, multicast or loopback.
   */
  readonly allow?: readonly string[];
  /** Ports of the host that lead to the guest: "8080:80", "0.0.0.0:5353:53/udp"; by default they listen on 127.0.0.1. */
  readonly publish?: readonly (string | PublishSpec)[];
  /** The adapter's address; by default one of 00:15:5d, by chance or by the name of the first disk. */
  readonly mac?: string;
  /** Host path: all frames, as pcapng. */
  readonly pcap?: string;
  /** Plugs it in to a network that machines share (`createNetwork`), which then has what `allow` and `publish` say. */
  readonly join?: JoinableNetwork;
  /** @internal For tests: what goes wrong on purpose between the adapter and the router. */
  readonly impairments?: Impairments;
  /** @internal For tests: channels that a guest may have beside the first; guests take no more than they have processors. */
  readonly maxSubChannels?: number;
}

type Answer = Extract<FromDevices, { type: "network-answer" }>;

/** The network of one machine, while it runs. */
export class VmNetwork {
  readonly #integration: Integration;
  readonly #specOf: (o: NetworkOptions, n: number) => NetworkSpec;
  #adding = new Set<number>();

  /** @internal @param specOf what an adapter is to be; it throws VmError "bad-option" */
  constructor(integration: Integration, specOf: (o: NetworkOptions, n: number) => NetworkSpec) {
    this.#integration = integration;
    this.#specOf = specOf;
  }
  /**
   * Plugs one more adapter in while the guest runs. Its addresses are the guest's own matter.
   * @returns its number, 1 to 7
   * @throws VmError "bad-option", "network"
   */
  async addAdapter(options: NetworkOptions, o: WaitOptions = {}): Promise<number> {
    const used = new Set((await this.#integration.status(o)).adapters.map(({ number }) => number));
    let n = 1;
    while (used.has(n) || this.#adding.has(n)) n++;
    if (n >= MAX_ADAPTERS)
      throw new VmError("bad-option", `a machine has ${MAX_ADAPTERS} network adapters at most`, "remove one first");
    const spec = this.#specOf(options, n);
    const cable = options.join?.plug();
    this.#adding.add(n);
    try {
      const transfer = cable === undefined ? [] : [cable as object];
      await this.#ask("the adapter", o, (id) => ({ type: "add-adapter", id, number: n, spec, cable }), transfer);
    } finally {
      this.#adding.delete(n);
    }
    return n;
  }
  /** Takes an adapter away; its connections break. @returns false if there is none of that number */
  async removeAdapter(n: number, o: WaitOptions = {}): Promise<boolean> {
    if (n === 0) throw new VmError("bad-option", "adapter 0 stays", 'make the machine with network: { mode: "none" }');
    const { done } = await this.#ask("the adapter to go", o, (id) => ({ type: "remove-adapter", id, number: n }));
    return done!;
  }
  /** All adapters, by number. */
  async adapters(o: WaitOptions = {}): Promise<readonly NetworkDeviceStatus[]> {
    return (await this.#integration.status(o)).adapters;
  }
  /**
   * Makes a port of the host lead to one of the guest.
   * @returns what listens; its `hostPort` is the one that was free, where 0 was asked for
   * @throws VmError "port-in-use", "bad-option", "network"
   */
  async publish(spec: string | PublishSpec, o: WaitOptions = {}): Promise<PublishedPort> {
    const parsed = specOf(spec);
    const { port } = await this.#ask("the port to listen", o, (id) => ({ type: "publish", id, spec: parsed }));
    return port!;
  }
  /** Listens no more; connections that are open stay. @returns false if there was no such port */
  async unpublish(port: PublishedPort | number, o: WaitOptions = {}): Promise<boolean> {
    const which = typeof port === "number" ? port : port.id;
    const { done } = await this.#ask("the port to close", o, (id) => ({ type: "unpublish", id, port: which }));
    return done!;
  }
  /** Ports that listen. */
  async published(o: WaitOptions = {}): Promise<readonly PublishedPort[]> {
    return (await this.status(o))?.nat?.published ?? [];
  }
  /** Replaces the allow list (undefined: everything); connections that are open stay. @throws VmError "bad-option" */
  async setAllowed(list: readonly string[] | undefined, o: WaitOptions = {}): Promise<void> {
    checkAllowed(list);
    await this.#ask("the allow list", o, (id) => ({ type: "allow", id, list }));
  }
  /**
   * Takes an adapter's cable out, or puts it in: the guest's driver is told, frames meanwhile are lost, connections go on afterwards. It
   * stays so over reboots; a machine that is restored has it in.
   * @returns false if there is no adapter of that number (default: 0)
   */
  async setLink(up: boolean, o: WaitOptions & { readonly adapter?: number } = {}): Promise<boolean> {
    const { adapter = 0, ...wait } = o;
    const { done } = await this.#ask("the cable", wait, (id) => ({ type: "link", id, number: adapter, up }));
    return done!;
  }
  /** The adapter and the router; undefined where there is no adapter. */
  async status(o: WaitOptions = {}): Promise<NetworkDeviceStatus | undefined> {
    return (await this.#integration.status(o)).network;
  }
  async #ask(
    what: string,
    o: WaitOptions,
    message: (id: number) => ToDevices,
    transfer: readonly object[] = [],
  ): Promise<Answer> {
    const answer = await this.#integration.ask<Answer>(what, o, message, "network-answer", transfer);
    if (answer.error !== undefined) throw fromPlain(answer.error);
    return answer;
  }
}

function specOf(spec: string | PublishSpec): PublishSpec {
  try {
    return typeof spec === "string" ? parsePublish(spec) : spec;
  } catch (error) {
    throw error instanceof PublishError ? networkFailure(error) : error;
  }
}
function checkAllowed(list: readonly string[] | undefined): void {
  try {
    new EgressPolicy(list);
  } catch (error) {
    throw networkFailure(error as PlainError);
  }
}

/** What a machine is, as far as the network has to know. */
export interface NetworkSituation {
  readonly hasService: boolean;
  readonly deterministic: boolean;
  /** Of the adapter. */
  readonly number: number;
  /** Of a saved machine: its adapter's address. */
  readonly savedMac: string | undefined;
  readonly firstDisk: string | undefined;
  /** 32 bits by chance. */
  readonly random: () => number;
}

/**
 * The network for the device side; undefined: no adapter.
 * @throws VmError "bad-option"
 */
export function networkSpec(o: NetworkOptions | undefined, s: NetworkSituation): NetworkSpec | undefined {
  const mode = o?.mode ?? "nat";
  const asked = o !== undefined && mode !== "none";
  if (mode === "none" && (o?.publish?.length ?? 0) > 0)
    throw new VmError("bad-option", "there are ports to publish, but no network", "leave --net none out");
  if (asked && s.deterministic)
    throw new VmError(
      "bad-option",
      "a deterministic machine has no network: what comes from outside could not be repeated",
      "leave --deterministic or the network's options out",
    );
  if (asked && !s.hasService)
    throw new VmError(
      "bad-option",
      "there are options of the network, but no network service",
      "add network to --services",
    );
  const { join } = o ?? {};
  if (join !== undefined && (mode === "none" || o?.allow !== undefined || (o?.publish?.length ?? 0) > 0))
    throw new VmError(
      "bad-option",
      "a machine on a shared network has no ports or allow list of its own",
      "give them to the network: createNetwork({ allow }), network.publish",
    );
  if (!s.hasService) return undefined;
  const { mac = s.savedMac ?? chooseMac(s) } = o ?? {};
  const bytes = parseMac(mac);
  if (bytes === undefined || (bytes[0]! & 1) !== 0)
    throw new VmError("bad-option", `not an address of a network adapter: ${mac}`, "write it as 00:15:5d:01:02:03");
  checkAllowed(o?.allow);
  return {
    mac: formatMac(bytes),
    isPluggedIn: mode === "nat" && !s.deterministic,
    ...(o?.allow === undefined ? {} : { allow: o.allow }),
    publish: (o?.publish ?? []).map(specOf),
    ...(o?.pcap === undefined ? {} : { pcap: o.pcap }),
    ...(join === undefined ? {} : { isShared: true }),
    ...(o?.impairments === undefined ? {} : { impairments: o.impairments }),
    ...(o?.maxSubChannels === undefined ? {} : { maxSubChannels: o.maxSubChannels }),
  };
}

/** Of Hyper-V's range. A machine that has a disk keeps its address as long as the disk has its name. */
function chooseMac({ firstDisk, random, number }: NetworkSituation): string {
  let n = firstDisk === undefined ? random() : 0x811c9dc5 ^ number;
  // FNV-1a
  for (const c of new TextEncoder().encode(firstDisk ?? "")) n = Math.imul(n ^ c, 0x01000193);
  return formatMac(Uint8Array.of(0x00, 0x15, 0x5d, n >>> 16, n >>> 8, n));
}
