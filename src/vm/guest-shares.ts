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
  s: { readonly hasNetwork: boolean; readonly hasAgent: boolean },
): readonly ShareSpec[] {
  if (shares.length === 0) return [];
  if (!s.hasAgent)
    throw new VmError(
      "bad-option",
      "this guest has no agent that mounts shares",
      "take a guest by reference (debian:12) with the sockets service, and leave --deterministic out",
    );
  if (!s.hasNetwork) throw new VmError("bad-option", "shares come over the network adapter", "leave --net none out");
  const taken = new Set<string>();
  return shares.map(({ directory, readOnly = false, mountPoint }) => {
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
    return { directory, readOnly, mountPoint: point };
  });
}

/**
 * Attributes that the guest's kernel may take for right without asking: what it changes itself it knows at once, what changes on the
 * host it sees after a second in a file that is open or looked at, or when it opens one.
 */
const OPTIONS =
  "vers=3,proto=tcp,port=2049,mountvers=3,mountproto=tcp,mountport=2049,addr=SERVER,mountaddr=SERVER,nolock,hard,acregmin=1,acregmax=10,acdirmin=1,acdirmax=10";
/** The router's second address: the name server's (net/config.ts). */
const SERVER = "10.0.2.3";
const MOUNT_MS = 60_000;

/**
 * In the agent's Perl: the kernel's own mount call, since not every guest has the program that prepares it. The modules come by the
 * kernel's asking. The network may come up a moment later.
 */
const MOUNT = String.raw`
my $options = shift;
while (my ($source, $point, $flags) = splice @ARGV, 0, 3) {
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
  const mounts = shares.flatMap(({ mountPoint, readOnly }, i) => [
    `${SERVER}:/${i}`,
    mountPoint,
    String(NOSUID_NODEV | (readOnly ? RDONLY : 0)),
  ]);
  const problem = (text: string): void => integration.receive({ type: "problem", text });
  return async (agent) => {
    try {
      const r = await agent.exec(["/proc/self/exe", "-e", MOUNT, OPTIONS.replaceAll("SERVER", SERVER), ...mounts], {
        timeoutMs: MOUNT_MS,
      });
      if (r.exitCode !== 0) problem(`a share could not be mounted: ${r.stderr.trim()}`);
    } catch (error) {
      problem(`shares could not be mounted: ${(error as Error).message}`);
    }
  };
}
