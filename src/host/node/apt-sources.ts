/**
 * What this host's apt is set to use: mirrors of Debian's main and security archives, proxies, and whether expired
 * indexes are accepted (sources.list(5), apt.conf(5), apt-transport-http(1)). Other vendors' lists are skipped.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseParagraphs } from "../../image/deb822.js";

export interface AptSettings {
  /** Base URLs without trailing "/", the preferred first. */
  readonly main: readonly string[];
  readonly security: readonly string[];
  /** From apt.conf: lower-case setting name to value, "acquire::http::proxy". */
  readonly configuration: ReadonlyMap<string, string>;
}

interface Source {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  readonly signedBy: string | undefined;
}

const CODENAMES = /^(buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)$/;
const SECURITY_SUITE = /^(.*)(-security|\/updates)$/;

function parseDeb822(text: string): Source[] {
  return parseParagraphs(text)
    .filter((fields) => !/^(no|false|0)$/i.test(fields.get("enabled") ?? "yes"))
    .filter((fields) => (fields.get("types") ?? "").split(/\s+/).includes("deb"))
    .map((fields) => {
      const words = (name: string): string[] => (fields.get(name) ?? "").split(/\s+/).filter((word) => word !== "");
      return {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signedBy: fields.get("signed-by"),
      };
    });
}

/** One-line style: "deb [option=value ...] uri suite component..." */
function parseOneLine(text: string): Source[] {
  const sources: Source[] = [];
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*?)\s*(?:#.*)?$/.exec(line);
    if (match === null) continue;
    sources.push({
      uris: [match[2]!],
      suites: [match[3]!],
      components: match[4]!.split(/\s+/).filter((word) => word !== ""),
      signedBy: /(?:^|\s)signed-by=(\S+)/i.exec(match[1] ?? "")?.[1],
    });
  }
  return sources;
}

/** A Debian archive's list, as far as its lines can tell; the signature has the last word. */
function isDebian({ suites, components, signedBy }: Source): boolean {
  const isKnown = suites.some((suite) =>
    CODENAMES.test(suite.replace(SECURITY_SUITE, "$1").replace(/-(updates|backports|proposed-updates)$/, "")),
  );
  return (
    isKnown && components.includes("main") && (signedBy === undefined || /debian-archive|BEGIN PGP/.test(signedBy))
  );
}

/** "mirror+file:/etc/apt/mirrors/debian.list" stands for the URLs in that file. */
async function expand(uri: string, root: string): Promise<string[]> {
  const list = /^mirror\+file:(\/.*)$/.exec(uri)?.[1];
  if (list === undefined) return /^(https?|file):/.test(uri) ? [uri] : [];
  const text = await readFile(join(root, list), "utf8").catch(() => "");
  const uris = text.split("\n").map((line) => line.trim().split(/\s+/)[0]!);
  return uris.filter((candidate) => /^(https?|file):/.test(candidate));
}

/**
 * apt.conf: `A::B "value";`, `A { B "value"; };`, comments in three styles. List items (`A:: "x";`) and #include are
 * passed over: nothing that we ask for is one.
 */
export function parseAptConfiguration(text: string): Map<string, string> {
  const settings = new Map<string, string>();
  const tokens =
    text.match(/\/\*[\s\S]*?\*\/|\/\/[^\n]*|#[^\n]*|"(?:[^"\\]|\\.)*"|[{};]|(?:(?!\/\/|\/\*)[^\s"{};])+/g) ?? [];
  const scopes: string[] = [];
  let words: string[] = [];
  for (const token of tokens) {
    if (/^(\/\/|\/\*|#)/.test(token)) continue;
    if (token === "{") {
      scopes.push(words[0] ?? "");
      words = [];
    } else if (token === ";" || token === "}") {
      const [name, value] = words;
      if (name !== undefined && value !== undefined) settings.set([...scopes, name].join("::").toLowerCase(), value);
      words = [];
      if (token === "}") scopes.pop();
    } else words.push(token.startsWith('"') ? token.slice(1, -1) : token);
  }
  return settings;
}

async function filesIn(folder: string, isWanted: (name: string) => boolean): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  const wanted = names.filter(isWanted).sort();
  return Promise.all(wanted.map((name) => readFile(join(folder, name), "utf8").catch(() => "")));
}

/** @param root where "/etc/apt" is looked up: "/" but in tests */
export async function readAptSettings(root = "/"): Promise<AptSettings> {
  const etc = join(root, "etc/apt");
  const isConfiguration = (name: string): boolean => /^[\w-]+(\.conf)?$/.test(name);
  const configurations = [
    ...(await filesIn(join(etc, "apt.conf.d"), isConfiguration)),
    await readFile(join(etc, "apt.conf"), "utf8").catch(() => ""),
  ];
  const configuration = new Map(configurations.flatMap((text) => [...parseAptConfiguration(text)]));

  const sources = [
    ...(await filesIn(join(etc, "sources.list.d"), (name) => name.endsWith(".sources"))).flatMap(parseDeb822),
    ...parseOneLine(await readFile(join(etc, "sources.list"), "utf8").catch(() => "")),
    ...(await filesIn(join(etc, "sources.list.d"), (name) => name.endsWith(".list"))).flatMap(parseOneLine),
  ].filter(isDebian);
  const main = new Set<string>();
  const security = new Set<string>();
  for (const { uris, suites } of sources) {
    for (const uri of uris) {
      for (const url of await expand(uri, root)) {
        const base = url.replace(/\/+$/, "");
        if (suites.some((suite) => SECURITY_SUITE.test(suite))) security.add(base);
        if (suites.some((suite) => !SECURITY_SUITE.test(suite))) main.add(base);
      }
    }
  }
  return { main: [...main], security: [...security], configuration };
}

/**
 * The proxy for a URL: apt's setting for the host, then for the scheme, then the environment's; undefined for none.
 */
export function proxyFor(
  url: URL,
  configuration: ReadonlyMap<string, string>,
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const scheme = url.protocol.replace(":", "");
  const setting =
    configuration.get(`acquire::${scheme}::proxy::${url.hostname.toLowerCase()}`) ??
    configuration.get(`acquire::${scheme}::proxy`) ??
    (scheme === "https" ? configuration.get("acquire::http::proxy") : undefined);
  if (setting !== undefined && setting !== "") return setting.toUpperCase() === "DIRECT" ? undefined : setting;

  const variable = (name: string): string | undefined => environment[name] ?? environment[name.toUpperCase()];
  const exceptions = (variable("no_proxy") ?? "").split(",").map((entry) => entry.trim().replace(/^\*?\./, ""));
  const isException = exceptions.some(
    (entry) => entry !== "" && (entry === "*" || url.hostname === entry || url.hostname.endsWith(`.${entry}`)),
  );
  const proxy = variable(`${scheme}_proxy`) ?? variable("all_proxy");
  return isException || proxy === "" ? undefined : proxy;
}
