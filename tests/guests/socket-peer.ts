/** The guest's end of the socket tests: a program in perl without a module, as the agent is. */
import { KEPT_IDLE } from "../../src/vm/guest-agent.js";
import type { GuestProcess, GuestSocket, Vm } from "../../src/vm/index.js";
import { eventually, PERL, sh } from "./hyperv-guest.js";

const PATH = "/tmp/peer";
const PROGRAM = String.raw`
sub address { pack('SSLLx4', 40, 0, $_[0], $_[1]) }
sub put { my ($s, $d) = @_; for (my $at = 0; $at < length $d;) { my $n = syswrite($s, $d, length($d) - $at, $at) or die "write: $!\n"; $at += $n } }
sub note { my ($file, $text) = @_; open(my $f, '>', "$file.new"); print $f $text; close $f; rename "$file.new", $file }
# $blocks blocks of 65536 bytes: words 0, 1, 2 ..., the first one the block's number
sub source { my ($s, $blocks, $file) = @_; my $block = pack('N*', 0 .. 16383);
  for my $i (0 .. $blocks - 1) { substr($block, 0, 4) = pack('N', $i); put($s, $block); note($file, ($i + 1) * 65536) if $file } }
my ($what, $port, @rest) = @ARGV;
my %serve = (
  echo => sub { my $s = shift; while (sysread($s, my $d, 65536)) { put($s, $d) } shutdown($s, 1) },
  source => sub { my $s = shift; source($s, @rest); shutdown($s, 1) },
  # reads nothing before the file is there
  sink => sub { my $s = shift; select(undef, undef, undef, 0.05) until -e $rest[0];
    open(my $f, '>', $rest[1]); while (sysread($s, my $d, 65536)) { put($f, $d) } close $f; put($s, 'taken'); shutdown($s, 1) },
  # answers when the other end has said all
  count => sub { my $s = shift; my $n = 0; while (my $k = sysread($s, my $d, 65536)) { $n += $k } source($s, 16); put($s, "$n"); shutdown($s, 1) },
);
if (my $serve = $serve{$what}) {
  socket(L, 40, 1, 0) && bind(L, address($port, 0xffffffff)) && listen(L, 128) or die "listen: $!\n";
  $SIG{CHLD} = 'IGNORE';
  syswrite(STDOUT, "listening\n");
  while (accept(C, L)) { my $pid = fork; if (!$pid) { close L; $serve->(\*C); close C; exit } close C }
}
elsif ($what eq 'connect' || $what eq 'ask') {
  socket(C, 40, 1, 0) or die "socket: $!\n";
  my $ts = pack('qq', 0, 0); syscall(228, 1, $ts); my ($s0, $n0) = unpack('qq', $ts);
  if (!connect(C, address($port, 2))) {
    my $error = $! + 0; syscall(228, 1, $ts); my ($s1, $n1) = unpack('qq', $ts);
    printf "error %d after %.2f\n", $error, $s1 - $s0 + ($n1 - $n0) / 1e9; exit 1 }
  if ($what eq 'ask') { # sends, ends its direction, and reads the answer
    source(C, 16); shutdown(C, 1); my $n = 0; while (my $k = sysread(C, my $d, 65536)) { $n += $k } print "answer of $n\n" }
  else { while (sysread(C, my $d, 65536)) { put(\*C, $d) } shutdown(C, 1) }
  close C;
}
`;

export const PEER = `${PERL} ${PATH}`;
export async function installPeer(vm: Vm): Promise<void> {
  const r = await vm.exec(`cat >${PATH}`, { stdin: PROGRAM, timeoutMs: 60_000 });
  if (r.exitCode !== 0) throw new Error(r.stderr);
}
/** Starts a listener in the guest; settles when it listens. */
export async function listener(vm: Vm, what: string, port: number, ...rest: string[]): Promise<GuestProcess> {
  let out = "";
  const take = (b: Uint8Array): void => {
    out += Buffer.from(b).toString();
  };
  const child = await vm.spawn([PERL, PATH, what, String(port), ...rest], {
    onStdout: take,
    onStderr: take,
    timeoutMs: 60_000,
  });
  await eventually(`the listener on port ${port} (${out})`, () => (out.includes("listening") ? true : undefined));
  return child;
}
/** What the guest's `source` sends. */
export function sourceBytes(blocks: number): Buffer {
  const all = Buffer.alloc(blocks * 65536);
  for (let i = 0; i < 16384; i++) all.writeUInt32BE(i, i * 4);
  for (let b = 1; b < blocks; b++) all.copy(all, b * 65536, 0, 65536);
  for (let b = 0; b < blocks; b++) all.writeUInt32BE(b, b * 65536);
  return all;
}
/**
 * Waits until connections have left nothing in the guest or here, but for those to the agent that wait for a command.
 * @param programs those that the agent runs meanwhile: each has one
 */
export async function nothingLeft(vm: Vm, programs: number): Promise<void> {
  await eventually("the connections to be gone on the host, and as many in the guest", async () => {
    // the one that asks is among them
    const inGuest = Number(await sh(vm, "cat /sys/bus/vmbus/devices/*/class_id | grep -c facb-11e6"));
    const { sockets, channels } = await vm.integration.status();
    const onBus = channels.filter((c) => c.name === "socket").length;
    const isLeft = sockets > programs + KEPT_IDLE || sockets <= programs || onBus !== sockets || inGuest !== sockets;
    return isLeft ? undefined : true;
  });
}
export async function send(socket: GuestSocket, bytes: Uint8Array): Promise<void> {
  await socket.write(bytes);
  socket.end();
}
