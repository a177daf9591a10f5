/** Folders of the host in the guest: what is asked for, and how the guest mounts them (services/files is what serves them). */
import type { FromDevices, ShareSpec } from "./device-messages.js";
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
   * How old in seconds the guest's idea of a file may be that it only looks at (opening one asks anew); 0: it asks each time, which
   * is slow. Default: the folder is watched, and what the host's programs change is told to the guest within some 50 ms; where it
   * cannot be watched (network file systems), 10.
   */
  readonly cacheSeconds?: number;
}

type ShareChange = Extract<FromDevices, { readonly type: "share-changed" }>;

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
  if (!s.hasNetwork)
    throw new VmError(
      "bad-option",
      "shares come over the network adapter",
      'take --net nat,allow=none (network: { allow: ["none"] }): the guest then reaches its folders and nothing else',
    );
  if (s.isShared)
    throw new VmError(
      "bad-option",
      "folders come over a network of the machine's own, and this one's is shared",
      "leave join or shares out",
    );
  const taken = new Set<string>();
  return shares.map(({ directory, readOnly = false, mountPoint, cacheSeconds: given }) => {
    const cacheSeconds = given ?? WATCHED_CACHE_SECONDS;
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
    return { directory, readOnly, mountPoint: point, cacheSeconds, isWatched: given === undefined };
  });
}

/** Should a change go unseen: by then, the guest asks. */
const WATCHED_CACHE_SECONDS = 600;
/** Of what has changed of late, where nothing is watched. */
const CHANGED_SECONDS = 3;
const MAX_CACHE_SECONDS = 3600;
/** The router's second address: the name server's (net/config.ts). */
const SERVER = "10.0.2.3";
/** What the kernel's mount call takes; attributes are kept as long as `cacheSeconds` says. */
function mountOptions({ cacheSeconds, isWatched }: ShareSpec): string {
  const at = `port=2049,mountvers=3,mountproto=tcp,mountport=2049,addr=${SERVER},mountaddr=${SERVER}`;
  const least = isWatched ? cacheSeconds : Math.min(CHANGED_SECONDS, cacheSeconds);
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

/**
 * In the agent's Perl, with paths on its standard input, each behind another a NUL: a look that asks the server (statx, without
 * following links, AT_STATX_FORCE_SYNC). With an argument, the kernel first lets go of all that it knows of files and nobody uses.
 */
const LOOK_ANEW = String.raw`
local $/;
my $paths = <STDIN>;
if (@ARGV and open my $f, '>', '/proc/sys/vm/drop_caches') { syswrite $f, '2' }
my $attributes = "\0" x 256;
syscall(332, -100, $_, 0x2100, 0x7ff, $attributes) for split /\0/, $paths;
`;
/**
 * With two paths on its standard input: lists the first, or all below it from the second on, in the order of names. The kernel then has
 * what it would ask for one by one. It is for nothing where the guest goes another way: bounded in entries and time.
 */
const LIST_AHEAD = String.raw`
# before those that ask, or it comes after them
setpriority(0, 0, -15);
my ($entries, $until) = (3_000, time + 5);
sub listed {
  my ($folder) = @_;
  my $links = (lstat $folder)[3];
  opendir my $d, $folder or return;
  my @names;
  while ($entries-- > 0 and defined(my $name = readdir $d)) { push @names, $name }
  # two links: no folder in it, on most file systems
  $links == 2 ? () : sort grep { !/^\.\.?$/ and lstat "$folder/$_" and -d _ } @names;
}
sub all_below {
  for my $folder (@_) { all_below(map { "$folder/$_" } listed($folder)) if $entries > 0 and time <= $until }
}
local $/;
my ($folder, $from) = split /\0/, <STDIN>, -1;
my @folders = listed($folder);
exit if $from eq '';
$from =~ s{.*/}{}s;
@folders = map { "$folder/$_" } (grep { $_ ge $from } @folders), (grep { $_ lt $from } @folders);
# several at once, as the server answers in the order of calls and those that ask may be many
for my $part (0 .. 7) {
  my @mine = @folders[grep { $_ % 8 == $part } 0 .. $#folders] or last;
  next if fork;
  all_below(@mine);
  exit;
}
1 while wait > 0;
`;
/** Folders that are listed at once; what comes meanwhile the guest does by itself. */
const MAX_LISTINGS = 2;
/** Paths that wait to be told; with more, the guest lets go of everything. */
const MAX_WAITING = 4000;
const LOOK_MS = 30_000;
const PERL = ["/proc/self/exe", "-e"];

/** A character for each byte: as a key, and to be joined. */
const asText = (bytes: Uint8Array): string => Array.from(bytes, (b) => String.fromCharCode(b)).join("");
const asBytes = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
const placeOf = ({ mountPoint }: ShareSpec): string => asText(new TextEncoder().encode(mountPoint));
function pathIn(spec: ShareSpec, path: Uint8Array): string {
  return path.length === 0 ? placeOf(spec) : `${placeOf(spec)}/${asText(path)}`;
}

/** The shares of one machine, as its agent has to do with them. */
export class GuestShares {
  readonly specs: readonly ShareSpec[];
  readonly #integration: Integration;
  readonly #exec: GuestAgent["exec"];
  /** Paths in the guest. */
  #changed = new Set<string>();
  /** There are too many to name. */
  #isAnything = false;
  #isTelling = false;
  /** Folders that are being listed; those with all below them end in a slash. */
  readonly #listings = new Set<string>();

  /** @param exec runs a command by the agent */
  constructor(specs: readonly ShareSpec[], integration: Integration, exec: GuestAgent["exec"]) {
    this.specs = specs;
    this.#integration = integration;
    this.#exec = exec;
  }
  /** Comes before the agent takes commands. What does not work is told as a problem, and the guest goes on. */
  async mount(): Promise<void> {
    if (this.specs.length === 0) return;
    // what waits to be told was for the guest before a reboot: this one knows nothing yet
    this.#taken();
    const mounts = this.specs.flatMap((spec, i) => [
      `${SERVER}:/${i}`,
      spec.mountPoint,
      String(NOSUID_NODEV | (spec.readOnly ? RDONLY : 0)),
      mountOptions(spec),
    ]);
    const problem = (text: string): void => this.#integration.receive({ type: "problem", text });
    try {
      const r = await this.#exec([...PERL, MOUNT, ...mounts], { timeoutMs: MOUNT_MS });
      if (r.exitCode !== 0) problem(`a share could not be mounted: ${r.stderr.trim()}`);
    } catch (error) {
      problem(`shares could not be mounted: ${(error as Error).message}`);
    }
  }
  /** Something in a share is not as the guest knows it. */
  changed({ share, paths }: ShareChange): void {
    for (const path of paths) this.#changed.add(pathIn(this.specs[share]!, path));
    if (this.#changed.size > MAX_WAITING) {
      this.#isAnything = true;
      this.#changed.clear();
    }
    if (!this.#isTelling) void this.#tell();
  }
  /** The guest asks for file after file: it gets them all at once. */
  scanned({ share, path, from }: Extract<FromDevices, { readonly type: "share-scanned" }>): void {
    const spec = this.specs[share]!;
    const folder = pathIn(spec, path);
    const listing = from === undefined ? folder : `${folder}/`;
    if (this.#listings.size === MAX_LISTINGS || this.#listings.has(listing)) return;
    if ([...this.#listings].some((other) => other.endsWith("/") && `${folder}/`.startsWith(other))) return;
    this.#listings.add(listing);
    const stdin = asBytes(`${folder}\0${from === undefined ? "" : pathIn(spec, from)}`);
    const done = (): void => void this.#listings.delete(listing);
    // it only saves time: a guest that does not do it loses nothing
    this.#exec([...PERL, LIST_AHEAD], { stdin, timeoutMs: LOOK_MS }).then(done, done);
  }
  #taken(): { readonly args: readonly string[]; readonly paths: Iterable<string> } {
    // what is in use is not let go of: at least the folders themselves
    const taken = this.#isAnything
      ? { args: ["anything"], paths: this.specs.map(placeOf) }
      : { args: [], paths: this.#changed };
    this.#changed = new Set();
    this.#isAnything = false;
    return taken;
  }
  async #tell(): Promise<void> {
    this.#isTelling = true;
    while (this.#isAnything || this.#changed.size > 0) {
      const { args, paths } = this.#taken();
      try {
        const stdin = asBytes([...paths].join("\0"));
        await this.#exec([...PERL, LOOK_ANEW, ...args], { stdin, timeoutMs: LOOK_MS });
      } catch {
        // a guest that goes down, or is very busy: what it still does not know is found again, and told again
      }
    }
    this.#isTelling = false;
  }
}
