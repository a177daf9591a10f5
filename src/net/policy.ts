/**
 * Where guests may connect to. An allow list names hosts, networks and domains; names are watched in the answers that a guest gets
 * from the name server here, so that only what it looked up is open to it. With a list, names that are not on it are not looked up
 * either: otherwise anything could be carried out in queries.
 */
import { formatIp, type IpAddress, inPrefix, type Prefix, parsePrefix } from "./address.js";
import { DnsType, parseAnswers, parseQuestion } from "./dns.js";

/** A list that cannot be understood. */
export class PolicyError extends Error {
  override readonly name = "PolicyError";
  readonly code = "bad-allow-list";
  readonly hint = "use none, HOST[:PORT], NETWORK/BITS[:PORT], DOMAIN[:PORT] or *.DOMAIN[:PORT]";
}

interface Rule {
  readonly prefix?: Prefix;
  /** Lower-case; of a wildcard what follows the star, with its dot. */
  readonly domain?: string;
  readonly wildcard: boolean;
  /** 0: all. */
  readonly port: number;
}

/** Addresses that answers opened for one guest. */
interface Seen {
  /** By address and the rule's port. */
  readonly until: Map<string, number>;
}

/** What a name is good for after its time to live: connections begin a little later than the answer came. */
const GRACE_NS = 300e9;
const MAX_ADDRESSES = 1024;
const MAX_GUESTS = 256;

/** @throws PolicyError */
function parseRule(text: string): Rule {
  const bracket = /^\[([^\]]+)\](?::(\d+))?$/.exec(text);
  const plain = parsePrefix(text);
  let host = text;
  let port = 0;
  if (bracket !== null) {
    host = bracket[1]!;
    port = Number(bracket[2] ?? 0);
  } else if (plain === undefined) {
    const m = /^(.*):(\d+)$/.exec(text);
    if (m !== null) {
      host = m[1]!;
      port = Number(m[2]);
      if (port === 0) throw new PolicyError(`no such port: ${text}`);
    }
  }
  if (port > 65_535) throw new PolicyError(`no such port: ${text}`);
  const prefix = parsePrefix(host);
  if (prefix !== undefined) return { prefix, wildcard: false, port };
  if (bracket !== null || !/^(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$/i.test(host) || /^[\d.]+$/.test(host))
    throw new PolicyError(`cannot be allowed: ${text}`);
  const name = host.toLowerCase().replace(/\.$/, "");
  return name.startsWith("*.")
    ? { domain: name.slice(1), wildcard: true, port }
    : { domain: name, wildcard: false, port };
}

/** An allow list at work. */
export class EgressPolicy {
  /** As it was given; undefined: everything is allowed. */
  readonly list: readonly string[] | undefined;
  readonly #rules: readonly Rule[];
  readonly #seen = new Map<string, Seen>();

  /**
   * @param list undefined: everything; `["none"]` or an empty list: nothing
   * @throws PolicyError
   */
  constructor(list: readonly string[] | undefined) {
    this.list = list;
    const entries = (list ?? []).map((s) => s.trim()).filter((s) => s !== "");
    if (entries.includes("none") && entries.length > 1) throw new PolicyError('"none" stands alone');
    this.#rules = entries[0] === "none" ? [] : entries.map(parseRule);
  }

  get isOpen(): boolean {
    return this.list === undefined;
  }

  /**
   * Whether a guest may talk to an address.
   *
   * @param names what the address is called here, beside what answers said
   */
  allows(guest: IpAddress, address: IpAddress, port: number, now: number, names: readonly string[] = []): boolean {
    if (this.isOpen) return true;
    const until = this.#rules.length === 0 ? undefined : this.#seen.get(formatIp(guest))?.until;
    const text = formatIp(address);
    for (const rule of this.#rules) {
      if (rule.port !== 0 && rule.port !== port) continue;
      if (rule.prefix !== undefined) {
        if (inPrefix(address, rule.prefix)) return true;
      } else if (names.some((n) => matches(rule, n)) || (until?.get(`${text} ${rule.port}`) ?? 0) > now) return true;
    }
    return false;
  }

  /** Whether a name may be looked up. */
  allowsName(name: string): boolean {
    return this.isOpen || this.#rules.some((r) => matches(r, name));
  }

  /**
   * Looks at an answer that goes to a guest.
   *
   * @param inside networks that no name outside may open: that of the guests, whose gateway is the host
   */
  watch(guest: IpAddress, message: Uint8Array, now: number, inside: readonly Prefix[] = []): void {
    if (this.isOpen || this.#rules.length === 0) return;
    const question = parseQuestion(message);
    if (question === undefined) return;
    const rules = this.#rules.filter((r) => matches(r, question.name));
    if (rules.length === 0) return;
    // the name asked for and what it is an alias of
    const names = new Set([question.name]);
    for (const { name, type, ttl, target, address } of parseAnswers(message)) {
      if (!names.has(name)) continue;
      if (type === DnsType.CNAME) names.add(target!);
      else if (address !== undefined && !inside.some((prefix) => inPrefix(address, prefix)))
        for (const rule of rules) this.#open(guest, `${formatIp(address)} ${rule.port}`, now + ttl * 1e9 + GRACE_NS);
    }
  }

  #open(guest: IpAddress, key: string, until: number): void {
    const who = formatIp(guest);
    let seen = this.#seen.get(who);
    if (seen === undefined) {
      if (this.#seen.size >= MAX_GUESTS) this.#seen.delete(this.#seen.keys().next().value!);
      seen = { until: new Map() };
      this.#seen.set(who, seen);
    }
    const before = seen.until.get(key) ?? 0;
    seen.until.delete(key); // to the end of the order
    if (seen.until.size >= MAX_ADDRESSES) seen.until.delete(seen.until.keys().next().value!);
    seen.until.set(key, Math.max(before, until));
  }
}

function matches(rule: Rule, name: string): boolean {
  if (rule.domain === undefined) return false;
  return rule.wildcard ? name.endsWith(rule.domain) && name.length > rule.domain.length : name === rule.domain;
}
