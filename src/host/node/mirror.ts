/**
 * A package source over HTTP and HTTPS (RFC 9110), through a proxy if one is set, or from a folder (file:). Which
 * mirror: the one the user names, else the environment's, else what the host's apt uses. None is built in.
 */
import { readFile } from "node:fs/promises";
import { type ClientRequest, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as tlsConnect } from "node:tls";
import { fileURLToPath } from "node:url";
import { concatBytes } from "../../image/byte-reader.js";
import { ImageError } from "../../image/errors.js";
import type { Archive, FetchOptions, PackageSource } from "../../image/package-source.js";
import { type AptSettings, proxyFor } from "./apt-sources.js";

export interface MirrorOptions {
  /** `--mirror`; the environment's ENLIGHTEN_MIRROR and apt's come after it. */
  readonly mirror?: string | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly apt: AptSettings;
  readonly keyring: () => Promise<Uint8Array>;
  /** Nothing will be fetched: then there need be no mirror. */
  readonly offline?: boolean | undefined;
  /** Silence after which a request is given up. */
  readonly idleMs?: number;
  /** Further attempts after a failure of the network or of the server. */
  readonly retries?: number;
  /** Before the first further attempt; doubles with each. */
  readonly retryDelayMs?: number;
}

const MAX_REDIRECTS = 5;
const ANOTHER_MIRROR = "check the network, or use another mirror (--mirror URL, ENLIGHTEN_MIRROR)";

/** "…/debian" has its security archive beside it, as "…/debian-security". */
function securityBeside(main: string): string {
  return main.replace(/\/+$/, "").replace(/[^/]*$/, "debian-security");
}

function locations({ mirror, environment, apt, offline }: MirrorOptions): Record<Archive, readonly string[]> {
  const named = mirror ?? environment.ENLIGHTEN_MIRROR;
  if (named !== undefined && named !== "") {
    if (!/^(https?|file):\/\//.test(named) || !URL.canParse(named)) {
      throw new ImageError(
        "bad-mirror",
        `"${named}" is no URL of a mirror`,
        "give http://HOST/debian, https: or file:",
      );
    }
    const main = named.replace(/\/+$/, "");
    return { main: [main], security: [securityBeside(main)] };
  }
  if (apt.main.length === 0) {
    if (offline) return { main: [], security: [] };
    throw new ImageError(
      "no-mirror",
      "no Debian mirror is known: this host's apt names none",
      "name one with --mirror URL or in ENLIGHTEN_MIRROR",
    );
  }
  return { main: apt.main, security: apt.security.length > 0 ? apt.security : apt.main.map(securityBeside) };
}

/** A failure that may pass: the network's, or the server's (5xx, 429). */
class Transient extends Error {}

/** No passwords in messages. */
const shown = (url: URL): string => `${url.protocol}//${url.host}${url.pathname}`;

interface Transport {
  readonly proxy: URL | undefined;
  readonly idleMs: number;
  readonly signal: AbortSignal | undefined;
}

const basicAuthorization = ({ username, password }: URL): Record<string, string> =>
  username === ""
    ? {}
    : {
        authorization: `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString("base64")}`,
      };

function proxyHeaders(proxy: URL): Record<string, string> {
  const { authorization } = basicAuthorization(proxy);
  return authorization === undefined ? {} : { "proxy-authorization": authorization };
}

/** A tunnel through the proxy, for https. */
function tunnel(proxy: URL, url: URL, { idleMs, signal }: Transport): Promise<Socket> {
  const target = `${url.hostname}:${url.port || 443}`;
  const send = proxy.protocol === "https:" ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const request = send({
      host: proxy.hostname,
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      method: "CONNECT",
      path: target,
      headers: { host: target, ...proxyHeaders(proxy) },
      ...(signal === undefined ? {} : { signal }),
    });
    request.setTimeout(idleMs, () => request.destroy(new Transient("the proxy does not answer")));
    request.on("error", reject);
    request.on("connect", (response, socket) => {
      if (response.statusCode === 200) resolve(socket as Socket);
      else {
        socket.destroy();
        reject(new Transient(`the proxy answers ${response.statusCode}`));
      }
    });
    request.end();
  });
}

async function open(url: URL, transport: Transport): Promise<IncomingMessage> {
  const { proxy, idleMs, signal } = transport;
  const options: RequestOptions = {
    headers: { "user-agent": "enlighten", host: url.host, ...basicAuthorization(url) },
    agent: false,
    ...(signal === undefined ? {} : { signal }),
  };
  let request: ClientRequest;
  if (url.protocol === "https:") {
    const socket = proxy === undefined ? undefined : await tunnel(proxy, url, transport);
    const createConnection = (): Socket => tlsConnect({ socket: socket!, servername: url.hostname });
    request = httpsRequest(url, socket === undefined ? options : { ...options, createConnection });
  } else if (proxy === undefined) request = httpRequest(url, options);
  else {
    request = (proxy.protocol === "https:" ? httpsRequest : httpRequest)({
      ...options,
      host: proxy.hostname,
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      path: `${url.protocol}//${url.host}${url.pathname}${url.search}`,
      headers: { ...options.headers, ...proxyHeaders(proxy) },
    });
  }
  return new Promise((resolve, reject) => {
    request.setTimeout(idleMs, () => request.destroy(new Transient(`no answer for ${idleMs / 1000} s`)));
    request.on("error", reject);
    request.on("response", resolve);
    request.end();
  });
}

async function readBody(response: IncomingMessage, url: URL, options: FetchOptions): Promise<Uint8Array> {
  const maxBytes = options.maxBytes ?? Number.POSITIVE_INFINITY;
  const stated = Number(response.headers["content-length"] ?? Number.NaN);
  const parts: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of response as AsyncIterable<Uint8Array>) {
    total += chunk.length;
    if (total > maxBytes) {
      response.destroy();
      throw new ImageError("too-big", `${shown(url)} is larger than it should be`, ANOTHER_MIRROR);
    }
    parts.push(chunk);
    options.onBytes?.(total);
  }
  if (total < stated) throw new Transient("the connection was cut");
  return concatBytes(parts);
}

export class Mirror implements PackageSource {
  readonly name: string;
  readonly keyring: () => Promise<Uint8Array>;
  readonly #options: MirrorOptions;
  readonly #locations: Record<Archive, readonly string[]>;

  /** @throws ImageError no-mirror, bad-mirror */
  constructor(options: MirrorOptions) {
    this.#options = options;
    this.#locations = locations(options);
    this.keyring = options.keyring;
    const [first] = this.#locations.main;
    this.name = first === undefined ? "no mirror" : shown(new URL(first));
  }

  /** Base URLs of an archive, without passwords, the preferred first. */
  urls(archive: Archive): readonly string[] {
    return this.#locations[archive].map((location) => shown(new URL(location)));
  }

  /** From the archive's first location; the next is asked when one fails. */
  async fetch(archive: Archive, path: string, options: FetchOptions = {}): Promise<Uint8Array> {
    let failure: unknown;
    for (const location of this.#locations[archive]) {
      try {
        return await this.#fetchWithRetries(new URL(`${location}/${path}`), options);
      } catch (error) {
        if (options.signal?.aborted || !(error instanceof ImageError)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async #fetchWithRetries(url: URL, options: FetchOptions): Promise<Uint8Array> {
    const retries = this.#options.retries ?? 2;
    for (let attempt = 0; ; attempt++) {
      try {
        return url.protocol === "file:" ? await readLocal(url, options) : await this.#fetchOnce(url, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof ImageError) throw error;
        if (attempt >= retries) {
          const why = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
          throw new ImageError("network", `${shown(url)} cannot be fetched: ${why}`, ANOTHER_MIRROR, { cause: error });
        }
        await sleep((this.#options.retryDelayMs ?? 500) * 2 ** attempt, undefined, { signal: options.signal });
      }
    }
  }

  async #fetchOnce(start: URL, options: FetchOptions): Promise<Uint8Array> {
    let url = start;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const proxy = proxyFor(url, this.#options.apt.configuration, this.#options.environment);
      const response = await open(url, {
        proxy: proxy === undefined ? undefined : new URL(proxy),
        idleMs: this.#options.idleMs ?? 30_000,
        signal: options.signal,
      });
      const status = response.statusCode ?? 0;
      if (status === 200) return readBody(response, url, options);
      response.destroy();
      const target = response.headers.location;
      if (status >= 300 && status < 400 && target !== undefined) {
        const next = URL.canParse(target, url.href) ? new URL(target, url) : undefined;
        if (next === undefined || !/^https?:$/.test(next.protocol)) {
          throw new ImageError("network", `${shown(url)} is redirected to no web address`, ANOTHER_MIRROR);
        }
        if (next.host !== url.host) next.username = next.password = "";
        url = next;
        continue;
      }
      if (status === 404 || status === 410) {
        throw new ImageError("not-found", `${shown(url)} does not exist`, "use another mirror (--mirror URL)");
      }
      if (status >= 500 || status === 429 || status === 408) throw new Transient(`the server answers ${status}`);
      throw new ImageError("network", `${shown(url)}: the server answers ${status}`, ANOTHER_MIRROR);
    }
    throw new ImageError("network", `${shown(start)} is redirected in circles`, ANOTHER_MIRROR);
  }
}

async function readLocal(url: URL, { maxBytes, signal }: FetchOptions): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(fileURLToPath(url), signal === undefined ? {} : { signal });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new ImageError("not-found", `${shown(url)} does not exist`, "use another mirror (--mirror URL)");
  }
  if (bytes.length > (maxBytes ?? Number.POSITIVE_INFINITY)) {
    throw new ImageError("too-big", `${shown(url)} is larger than it should be`, "use another mirror (--mirror URL)");
  }
  return bytes;
}
