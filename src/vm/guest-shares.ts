/** Folders of the host in the guest: what is asked for, and how the guest mounts them (services/files is what serves them). */
import type { ShareSpec } from "./device-messages.js";
import type { GuestAgent } from "./guest-agent.js";
import type { Integration } from "./integration.js";
import { VmError } from "./vm-error.js";

/** A folder of the host's that the guest sees. */
export interface ShareOptions {
  /** Host path. */
  readonly directory: string;
  /** Default: the guest may write, as the host's user. */
  readonly readOnly?: boolean;
  /** Where in the guest. Default: /mnt/ and the folder's name. */
  readonly mountPoint?: string;
  /**
   * How old in seconds the guest's idea of a file may be that it only looks at (opening one asks anew). Default: 10, and 3 for what
   * has changed of late; 0: it asks each time, which is slow.
   */
  readonly cacheSeconds?: number;
}

/** The guest's kernel needs these beside what its network needs. */
export const SHARE_MODULES: readonly string[] = ["nfs", "nfsv3"];

/** DIR, DIR:ro, DIR:/GUEST/PATH, DIR:/GUEST/PATH:ro. @throws VmError "bad-option" */
export function parseShare(text: string): ShareOptions {
  const match = /^(.+?)(?::(\/[^:]*))?(?::(ro|rw))?$/.exec(text);
  if (match === null || text.includes("\0"))
    throw new VmError(
      "bad-option",
      `"${text}" is no share`,
      "write DIR, DIR:ro, DIR:/GUEST/PATH or DIR:/GUEST/PATH:ro",
    );
  const [, directory, mountPoint, mode] = match;
  return {
    directory: directory!,
    readOnly: mode === "ro",
    ...(mountPoint === undefined ? {} : { mountPoint }),
  };
}

/** @throws VmError "bad-option" */
export function shareSpecs(
  shares: readonly ShareOptions[],
  s: { readonly hasNetwork: boolean; readonly isShared: boolean; readonly hasAgent: boolean },
): readonly ShareSpec[] {
  if (shares.length === 0) return [];
  if (!s.hasAgent)
    throw new VmError(
      "bad-option",
      "this guest has no agent that mounts shares",
      "take a guest by reference (debian:12) with the sockets service, and leave --deterministic out",
    );
  if (!s.hasNetwork) throw new VmError("bad-option", "shares come over the network adapter", "leave --net none out");
  if (s.isShared)
    throw new VmError(
      "bad-option",
      "folders come over a network of the machine's own, and this one's is shared",
      "leave join or shares out",
    );
  const taken = new Set<string>();
  return shares.map(({ directory, readOnly = false, mountPoint, cacheSeconds = DEFAULT_CACHE_SECONDS }) => {
    const name = directory
      .split(/[/\\]/)
      .filter((part) => part !== "" && part !== "." && part !== "..")
      .at(-1);
    const point = (mountPoint ?? `/mnt/${name ?? "share"}`).replace(/(?<=.)\/+$/, "");
    if (!point.startsWith("/") || point === "/" || /[\0\n]|(^|\/)\.\.?(\/|$)/.test(point))
      throw new VmError("bad-option", `${point} is no place for a share in the guest`, "give an absolute path below /");
    if (taken.has(point))
      throw new VmError("bad-option", `two shares are to be at ${point}`, "say where: DIR:/GUEST/PATH");
    taken.add(point);
    if (!(Number.isInteger(cacheSeconds) && cacheSeconds >= 0 && cacheSeconds <= MAX_CACHE_SECONDS))
      throw new VmError("bad-option", `cacheSeconds ${cacheSeconds}`, `a whole number, 0 to ${MAX_CACHE_SECONDS}`);
    return { directory, readOnly, mountPoint: point, cacheSeconds };
  });
}

const DEFAULT_CACHE_SECONDS = 10;
/** Of what has changed of late. */
const CHANGED_SECONDS = 3;
const MAX_CACHE_SECONDS = 3600;
/** The router's second address: the name server's (net/config.ts). */
const SERVER = "10.0.2.3";
/** What the kernel's mount call takes; attributes are kept as long as `cacheSeconds` says. */
function mountOptions(cacheSeconds: number): string {
  const at = `port=2049,mountvers=3,mountproto=tcp,mountport=2049,addr=${SERVER},mountaddr=${SERVER}`;
  const least = Math.min(CHANGED_SECONDS, cacheSeconds);
  const cache = ["reg", "dir"].map((of) => `ac${of}min=${least},ac${of}max=${cacheSeconds}`).join(",");
  return `vers=3,proto=tcp,${at},nolock,hard,${cache}`;
}
const MOUNT_MS = 60_000;

/**
 * In the agent's Perl: the kernel's own mount call, since not every guest has the program that prepares it. The modules come by the
 * kernel's asking. The network may come up a moment later.
 */
const MOUNT = String.raw`
while (my ($source, $point, $flags, $options) = splice @ARGV, 0, 4) {
  my $path = '';
  for (grep { length } split m{/}, $point) { $path .= "/$_"; mkdir $path, 0755 }
  -d $point or do { print STDERR "$point: $!\n"; $failed = 1; next };
  my $type = 'nfs';
  for my $try (1 .. 150) {
    my ($where, $with) = ("$point", "$options");
    last if syscall(165, $source, $where, $type, $flags + 0, $with) == 0;
    # unreachable, refused, timed out, no address yet: the network is not up
    if ($try == 150 || !grep { $! == $_ } 99, 100, 101, 110, 111, 112, 113) { print STDERR "$point: $!\n"; $failed = 1; last }
    select(undef, undef, undef, 0.1);
  }
}
exit($failed ? 1 : 0);
`;
/** MS_RDONLY, MS_NOSUID, MS_NODEV. */
const RDONLY = 1;
const NOSUID_NODEV = 2 | 4;

/** What an agent does before it takes commands: mounts all. What does not work is told as a problem, and the guest goes on. */
export function shareMounter(
  shares: readonly ShareSpec[],
  integration: Integration,
): ((agent: GuestAgent) => Promise<void>) | undefined {
  if (shares.length === 0) return undefined;
  const mounts = shares.flatMap(({ mountPoint, readOnly, cacheSeconds }, i) => [
    `${SERVER}:/${i}`,
    mountPoint,
    String(NOSUID_NODEV | (readOnly ? RDONLY : 0)),
    mountOptions(cacheSeconds),
  ]);
  const problem = (text: string): void => integration.receive({ type: "problem", text });
  return async (agent) => {
    try {
      const r = await agent.exec(["/proc/self/exe", "-e", MOUNT, ...mounts], {
        timeoutMs: MOUNT_MS,
      });
      if (r.exitCode !== 0) problem(`a share could not be mounted: ${r.stderr.trim()}`);
    } catch (error) {
      problem(`shares could not be mounted: ${(error as Error).message}`);
    }
  };
}
