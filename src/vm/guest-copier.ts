/**
 * The program in the guest that sends and receives files (copy-protocol.ts). The host sends it along with each copy, so that a guest
 * needs nothing but the agent; it runs in the agent's own Perl, without a single module, and connects to the host.
 */
import { COPY_CHUNK } from "./copy-protocol.js";
import { SUM_PIECE } from "./copy-sum.js";

export const GUEST_COPIER = String.raw`
umask 0; $SIG{PIPE} = 'IGNORE';
# half a file is none, however this ends
my $half;
END { unlink $half if defined $half }
my ($port, $token) = delete @ENV{qw(ENLIGHTEN_COPY_PORT ENLIGHTEN_COPY_TOKEN)};
socket(S, 40, 1, 0) && connect(S, pack('SSLLx4', 40, 0, $port, 2)) or die "no connection to the host: $!\n";
my ($in, $out, $sum, $CHUNK, $PIECE) = ('', $token, 0, ${COPY_CHUNK}, ${SUM_PIECE});

sub send_all {
  my $at = 0;
  while ($at < length $_[0]) {
    my $n = syswrite(S, $_[0], length($_[0]) - $at, $at);
    if ($n) { $at += $n } elsif ($! != 4) { die "sending: $!\n" }
  }
}
sub flush { send_all($out); $out = '' }
sub emit { $out .= pack('aV', $_[0], length $_[1]) . $_[1]; flush() if length $out > 65536 }
# the host ends the connection once it has read everything
sub leave { flush(); 1 while sysread(S, my $rest, 65536); exit $_[0] }
sub failed { my ($path, $errno, $text) = ($_[0], $! + 0, "$!"); emit('F', pack('V', $errno) . "$path\0$text"); leave(1) }
sub differs { emit('F', pack('V', 0) . "$_[0]\0"); leave(1) }
sub warning { emit('W', "$_[0]\0$_[1]") }
sub take {
  my ($n) = @_;
  while (length $in < $n) { sysread(S, $in, 65536, length $in) or $! == 4 or die "receiving: $!\n" }
  return substr($in, 0, $n, '');
}
sub body {
  my ($n) = @_;
  my $data = substr($in, 0, $n, '');
  while (length $data < $n) { sysread(S, $data, $n - length $data, length $data) or $! == 4 or die "receiving data: $!\n" }
  return $data;
}
my $MASK;
sub add {
  my $mixed = substr($_[1], 0, $PIECE);
  for (my $at = $PIECE; $at < length $_[1]; $at += $PIECE) { $mixed ^= substr($_[1], $at, $PIECE) }
  my $pad = -length($mixed) & 7;
  $mixed .= "\0" x $pad if $pad;
  $mixed ^= length $mixed == $PIECE ? $MASK : substr($MASK, 0, length $mixed);
  $sum = (($sum << 5) | ($sum >> 59)) ^ unpack('%64Q*', $mixed) ^ $_[0];
}

sub set_time { # path, seconds, ns
  my $path = "$_[0]";
  my $times = pack('q4', 0, 0x3ffffffe, $_[1], $_[2]); # the first is left alone
  syscall(280, -100, $path, $times, 0x100);
}
sub make_room { unlink $_[0] if lstat($_[0]) && !-d _ }
my %TYPE = (p => 010000, c => 020000, b => 060000, s => 0140000);

sub receive {
  my ($root, $name) = @_;
  $root = $root =~ m{/$} ? "$root$name" : "$root/$name" if length $name && -d $root;
  my (@open, $file, $path, $at, $long, @entry);
  my $first = 1;
  for (;;) {
    my ($type, $length) = unpack('aV', take(5));
    if ($type eq 'D') {
      my $offset = unpack('Q', take(8));
      my $data = body($length - 8);
      add($offset, $data);
      if ($offset != $at) { sysseek($file, $offset, 0); $at = $offset }
      for (my $done = 0; $done < length $data;) {
        my $n = syswrite($file, $data, length($data) - $done, $done);
        defined $n or failed($path);
        $done += $n; $at += $n;
      }
    } elsif ($type eq 'T') {
      my ($kind, $mode, $seconds, $ns, $size, $major, $minor, $n, $t) = unpack('aVqVQVVvv', take(37));
      my $own = take($n);
      my $target = take($t);
      $path = $first ? $root : "$open[-1][0]/$own";
      if ($kind eq 'd') {
        unless ($first ? -d $path : (lstat($path) && -d _)) { mkdir($path, 0700) or failed($path) }
        push @open, [$path, $mode, $seconds, $ns];
      } elsif ($kind eq 'f') {
        make_room($path);
        # write, create, exclusive, no link
        sysopen($file, $path, 1 | 64 | 128 | 131072, 0600) or failed($path);
        $half = $path;
        ($at, $sum) = (0, 0);
        # of its full length at once: else ext4 writes the inode anew for each page
        $long = $size >= 1048576 && truncate($file, $size) ? $size : 0;
        @entry = ($mode, $seconds, $ns);
      } else {
        make_room($path);
        if ($kind eq 'l') { symlink($target, $path) or failed($path) }
        elsif ($kind eq 'h') { link("$root/$target", $path) or failed($path) }
        else {
          my $name = "$path";
          if (syscall(133, $name, $TYPE{$kind} | $mode, ($minor & 0xff) | ($major << 8) | (($minor & ~0xff) << 12)) != 0) {
            warning($path, "$!"); $first = 0; next;
          }
          chmod($mode, $path);
        }
        set_time($path, $seconds, $ns) unless $kind eq 'h';
      }
      $first = 0;
    } elsif ($type eq 'E') {
      my ($size, $expected) = unpack('QQ', take(16));
      $sum == $expected or differs($path);
      $at == $size && $long <= $size or truncate($file, $size) or failed($path);
      chmod($entry[0], $file) or failed($path);
      close $file or failed($path);
      undef $half;
      set_time($path, @entry[1, 2]);
    } elsif ($type eq 'L') {
      my $folder = pop @open;
      chmod($folder->[1], $folder->[0]) or failed($folder->[0]);
      set_time($folder->[0], @$folder[2, 3]);
    } elsif ($type eq 'Q') { emit('K', ''); leave(0) }
    else { die "no record: $type\n" }
  }
}

my (%linked, $base);
sub send_data {
  my ($file, $path, $from, $to) = @_;
  sysseek($file, $from, 0);
  while (!defined $to || $from < $to) {
    my $want = defined $to && $to - $from < $CHUNK ? $to - $from : $CHUNK;
    my $n = sysread($file, my $data, $want);
    defined $n or failed($path);
    last unless $n;
    add($from, $data);
    $out .= pack('aVQ', 'D', 8 + $n, $from);
    if ($n < 8192) { $out .= $data; flush() if length $out > 65536 } else { flush(); send_all($data) }
    $from += $n;
  }
  return $from;
}
sub send_tree { # path, name, path from the root, follow
  my ($path, $name, $below, $follow) = @_;
  my $file = "$path";
  my $stat = "\0" x 144;
  if (syscall(262, -100, $file, $stat, $follow ? 0 : 0x100) != 0) {
    return warning($path, "$!") if $! == 2 && length $below;
    failed($path);
  }
  my ($dev, $ino, $links, $mode, undef, undef, $rdev, $size, undef, $blocks, undef, undef, $seconds, $ns) = unpack('QQQLLLx4Qqqqqqqq', $stat);
  my $type = $mode & 0170000;
  $mode &= 07777;
  my ($major, $minor) = ((($rdev >> 8) & 0xfff), ($rdev & 0xff) | (($rdev >> 12) & ~0xff));
  my $entry = sub { my ($kind, $target) = @_; emit('T', pack('aVqVQVVvv', $kind, $mode, $seconds, $ns, $size, $major, $minor, length $name, length $target) . $name . $target) };
  if ($type == 0040000) {
    opendir(my $folder, $path) or failed($path);
    my @names = grep { $_ ne '.' && $_ ne '..' } readdir $folder;
    closedir $folder;
    $entry->('d', '');
    send_tree("$path/$_", $_, length $below ? "$below/$_" : $_, 0) for @names;
    emit('L', '');
    return;
  }
  if ($links > 1 && length $below) {
    my $key = "$dev $ino";
    return $entry->('h', $linked{$key}) if defined $linked{$key};
    $linked{$key} = $below;
  }
  if ($type == 0100000) {
    # read, no link, non-blocking: it may be something else by now
    sysopen(my $handle, $path, $follow ? 0 : 131072 | 2048) or do {
      return warning($path, "$!") if $! == 2 && length $below;
      failed($path);
    };
    $entry->('f', '');
    $sum = 0;
    my $end = 0;
    if ($blocks * 512 < $size) {
      # SEEK_DATA, SEEK_HOLE; beyond the last data there is nothing (ENXIO)
      for (my $at = 0; $at < $size; ) {
        my $data = sysseek($handle, $at, 3);
        last unless defined $data;
        my $hole = sysseek($handle, $data, 4);
        $at = send_data($handle, $path, $data + 0, $hole + 0);
        last if $at < $hole;
      }
      $end = $size;
    } else { $end = send_data($handle, $path, 0) }
    emit('E', pack('QQ', $end, $sum));
  } elsif ($type == 0120000) {
    my $target = readlink $path;
    defined $target or failed($path);
    $entry->('l', $target);
  } else {
    my ($kind) = grep { $TYPE{$_} == $type } keys %TYPE;
    $entry->($kind, '');
  }
}

flush();
$MASK = body($PIECE);
my ($type, $length) = unpack('aV', take(5));
my ($direction, $path, $name) = split /\0/, take($length), -1;
if ($direction eq 'in') { receive($path, $name) }
else { send_tree($path, $name, '', $path =~ m{/$}); emit('Q', ''); leave(0) }
`;
