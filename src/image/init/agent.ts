/**
 * The agent in the guest: takes commands over Hyper-V sockets (AF_VSOCK). Perl without a single module, since `perl-base` is on
 * every Debian and has sockets; one process serves all sessions. vm/agent-protocol.ts is the other end and tells the frames.
 */
export const AGENT_PORT = 5000;
/** Where the small guest has Debian's perl: the program alone, without its library. */
export const AGENT_PERL = "usr/lib/enlighten/perl";

export const AGENT = String.raw`# enlighten's agent: see AGENT_PORT. Frames: type (1 byte), length (4, little-endian), payload.
$PORT = ${AGENT_PORT}; $ANY = 0xffffffff; $HOST = 2; $LIMIT = 262144; $CHUNK = 65536;
$O_NONBLOCK = 2048; $F_SETFL = 4; $EAGAIN = 11; $EINTR = 4;
$SIG{PIPE} = 'IGNORE';
sub address { pack('SSLLx4', 40, 0, $_[0], $_[1]) }
# ioctl writes to its argument: it must be a variable
sub control { my ($fh, $request, $data) = @_; ioctl($fh, $request, $data) }
sub unblock { fcntl($_[0], $F_SETFL, $O_NONBLOCK) }

pipe(CHILD_R, CHILD_W); unblock(CHILD_R); unblock(CHILD_W);
$SIG{CHLD} = sub { syswrite(CHILD_W, '.') };
socket(LISTENER, 40, 1, 0) or die "no vsock: $!\n";
bind(LISTENER, address($PORT, $ANY)) or die "bind: $!\n";
listen(LISTENER, 128) or die "listen: $!\n";
unblock(LISTENER);
# closed by hand: a variable of an if's condition lives on to the end of the file
if (socket(HELLO, 40, 1, 0)) { if (connect(HELLO, address($PORT, $HOST))) { syswrite(HELLO, "ready\n") } close HELLO }

# A session: sock, in (bytes not yet a frame), out (bytes to the host), keep (the connection is for the next command too), and of the
# command: pid, stdin, stdin_data, stdin_end, stdout, stderr, status, why.
%sessions = (); $next = 1;
sub frame { my ($s, $type, $data) = @_; $s->{out} .= $type . pack('V', length $data) . $data }
sub finish {
  my ($s) = @_;
  close $_ for grep { defined } delete @$s{qw(sock stdin stdout stderr)};
  if ($s->{pid} && !defined $s->{status}) { kill('KILL', -$s->{pid}) or kill('KILL', $s->{pid}); $s->{orphan} = 1 }
  else { delete $sessions{$s->{id}} }
}
sub refuse { my ($s, $text) = @_; frame($s, 'F', $text); $s->{closing} = 1 unless $s->{keep} }
# The command is over, its connection waits for another.
sub again { my ($s) = @_; delete @$s{qw(pid stdin stdout stderr status why pty)}; $s->{stdin_data} = ''; $s->{stdin_end} = 0 }

sub run {
  my ($s, $request) = @_;
  my (@args, %env, %o);
  my @pairs = split /\0/, $request, -1; pop @pairs;
  while (@pairs) {
    my ($key, $value) = splice @pairs, 0, 2;
    if ($key eq 'arg') { push @args, $value }
    elsif ($key eq 'env') { my ($n, $v) = split /=/, $value, 2; $env{$n} = $v }
    else { $o{$key} = $value }
  }
  $s->{keep} = $o{keep};
  return refuse($s, 'no command') unless @args;
  my ($uid, $gid, $home);
  if (defined $o{user}) {
    my @user = $o{user} =~ /^\d+$/ ? getpwuid($o{user}) : getpwnam($o{user});
    return refuse($s, "no user $o{user}") unless @user;
    ($uid, $gid, $home) = @user[2, 3, 7];
  }
  my ($in_r, $in_w, $out_r, $out_w, $err_r, $err_w, $master, $slave, $fail_r, $fail_w);
  if (defined $o{pty}) {
    open($master, '+<', '/dev/ptmx') or return refuse($s, "ptmx: $!");
    control($master, 0x40045431, pack('l', 0));
    my $number = pack('L', 0);
    ioctl($master, 0x80045430, $number) or return refuse($s, "ptmx: $!");
    my ($rows, $cols) = split /x/, $o{pty};
    control($master, 0x5414, pack('S4', $rows, $cols, 0, 0));
    $slave = '/dev/pts/' . unpack('L', $number);
    unblock($master);
  } else {
    pipe($in_r, $in_w) && pipe($out_r, $out_w) && pipe($err_r, $err_w) or return refuse($s, "pipe: $!");
    unblock($_) for $in_w, $out_r, $err_r;
  }
  pipe($fail_r, $fail_w) or return refuse($s, "pipe: $!");
  my $pid = fork;
  return refuse($s, "fork: $!") unless defined $pid;
  if ($pid == 0) {
    # what a shell starts in the background ignores INT and QUIT, and would pass that on
    $SIG{$_} = 'DEFAULT' for qw(PIPE CHLD INT QUIT);
    syscall(112); # setsid
    if (defined $slave) {
      open(my $tty, '+<', $slave) or do { syswrite($fail_w, "$slave: $!"); syscall(231, 126) };
      ioctl($tty, 0x540e, 0);
      open(STDIN, '<&', $tty); open(STDOUT, '>&', $tty); open(STDERR, '>&', $tty);
      close $tty; close $master;
    } else { # dup2
      syscall(33, fileno $in_r, 0); syscall(33, fileno $out_w, 1); syscall(33, fileno $err_w, 2);
    }
    if (defined $uid) { $) = "$gid $gid"; $( = $gid; $< = $> = $uid; $ENV{HOME} = $home }
    $ENV{$_} = $env{$_} for keys %env;
    my $cwd = defined $o{cwd} ? $o{cwd} : $ENV{HOME} || '/';
    chdir $cwd or do { syswrite($fail_w, "$cwd: $!"); syscall(231, 126) };
    # an attempt of the kernel's costs more than a look
    my $file = $args[0];
    if (index($file, '/') < 0) { for (split /:/, $ENV{PATH}) { if (-x "$_/$file" && !-d _) { $file = "$_/$file"; last } } }
    exec { $file } @args;
    syswrite($fail_w, "$args[0]: $!");
    syscall(231, 127); # exit_group
  }
  close $_ for grep { defined } $in_r, $out_w, $err_w, $fail_w;
  my $why = '';
  sysread($fail_r, $why, 1024);
  close $fail_r;
  $s->{why} = $why if length $why;
  $s->{pid} = $pid; $by_pid{$pid} = $s;
  if (defined $master) { $s->{stdin} = $s->{stdout} = $master; $s->{pty} = 1 }
  else { @$s{qw(stdin stdout stderr)} = ($in_w, $out_r, $err_r) }
  frame($s, 'P', pack('VC', $pid, $s->{keep} ? 1 : 0));
}

sub take {
  my ($s) = @_;
  while (length $s->{in} >= 5) {
    my ($type, $length) = unpack('aV', $s->{in});
    return finish($s) if $length > 1048576;
    last if length $s->{in} < 5 + $length;
    my $data = substr($s->{in}, 5, $length);
    substr($s->{in}, 0, 5 + $length) = '';
    if ($type eq 'R') { eval { run($s, $data); 1 } or refuse($s, $@) unless $s->{pid} || $s->{closing} }
    elsif (!$s->{pid}) { } # for a command that has ended
    elsif ($type eq 'I') { $s->{stdin_data} .= $data }
    elsif ($type eq 'E') { $s->{stdin_end} = 1 }
    elsif ($type eq 'S') { my $n = unpack 'V', $data; $s->{pid} && !defined $s->{status} and kill($n, -$s->{pid}) || kill($n, $s->{pid}) }
    elsif ($type eq 'W') { $s->{pty} && $s->{stdin} and control($s->{stdin}, 0x5414, pack('S4', unpack('vv', $data), 0, 0)) }
  }
}
# @returns 0 at the end of what there is for good, 1 when there may be more
sub pump {
  my ($s, $from, $type) = @_;
  my $fh = $s->{$from} or return 0;
  for (1 .. 4) {
    last if length $s->{out} > $LIMIT;
    my $n = sysread($fh, my $data, $CHUNK);
    if ($n) { frame($s, $type, $data); next }
    return 1 if !defined $n && ($! + 0 == $EAGAIN || $! + 0 == $EINTR);
    delete $s->{$from};
    delete $s->{stdin} if $s->{pty};
    return 0;
  }
  return 1;
}
sub feed {
  my ($s) = @_;
  my $fh = $s->{stdin} or do { my $n = length $s->{stdin_data}; $s->{stdin_data} = ''; frame($s, 'C', pack('V', $n)) if $n; return };
  if (length $s->{stdin_data}) {
    my $n = syswrite($fh, $s->{stdin_data});
    if ($n) { substr($s->{stdin_data}, 0, $n) = ''; frame($s, 'C', pack('V', $n)) }
    elsif ($! + 0 != $EAGAIN && $! + 0 != $EINTR) { close delete $s->{stdin} unless $s->{pty}; delete $s->{stdin} }
  }
  if ($s->{stdin_end} && !length $s->{stdin_data} && $s->{stdin}) {
    if ($s->{pty}) { syswrite($fh, "\4"); $s->{stdin_end} = 0 } else { close delete $s->{stdin} }
  }
}

for (;;) {
  my ($r, $w) = ('', '');
  vec($r, fileno LISTENER, 1) = 1; vec($r, fileno CHILD_R, 1) = 1;
  for my $s (values %sessions) {
    next unless $s->{sock};
    my $fd = fileno $s->{sock};
    vec($r, $fd, 1) = 1;
    vec($w, $fd, 1) = 1 if length $s->{out};
    if (length $s->{out} <= $LIMIT && !defined $s->{status}) {
      vec($r, fileno $s->{$_}, 1) = 1 for grep { $s->{$_} } qw(stdout stderr);
    }
    vec($w, fileno $s->{stdin}, 1) = 1 if $s->{stdin} && (length $s->{stdin_data} || $s->{stdin_end});
  }
  # Perl runs a handler between two operations: a signal just before select is not seen until it returns. So nobody waits for it
  # alone, and a command whose output has ended is looked after at once.
  my $wait = %by_pid ? 0.5 : undef;
  for my $s (values %sessions) { $wait = 0.02 if $s->{pid} && !defined $s->{status} && !$s->{stdout} && !$s->{stderr} }
  my $ready = select($r, $w, undef, $wait);
  ($r, $w) = ('', '') if $ready <= 0;
  sysread(CHILD_R, my $dots, 4096);
  if (%by_pid) {
    while ((my $pid = waitpid(-1, 1)) > 0) {
      my $s = delete $by_pid{$pid} or next;
      $s->{status} = $?;
      delete $sessions{$s->{id}} if $s->{orphan};
    }
  }
  if (vec($r, fileno LISTENER, 1)) {
    while (accept(my $sock, LISTENER)) {
      unblock($sock);
      my $s = { id => $next++, sock => $sock, in => '', out => '', stdin_data => '' };
      $sessions{$s->{id}} = $s;
    }
  }
  for my $s (values %sessions) {
    my $sock = $s->{sock} or next;
    if (vec($r, fileno $sock, 1)) {
      my $n = sysread($sock, my $data, $CHUNK);
      if ($n) { $s->{in} .= $data; take($s) }
      elsif (defined $n || ($! + 0 != $EAGAIN && $! + 0 != $EINTR)) { finish($s); next }
    }
    next unless $s->{sock};
    if (!defined $s->{status}) {
      for (['stdout', 'O'], ['stderr', 'X']) {
        my ($from, $type) = @$_;
        pump($s, $from, $type) if $s->{$from} && vec($r, fileno $s->{$from}, 1);
      }
    } elsif (!$s->{done}) {
      # what it wrote before it ended is all there; what its children write later is nobody's
      my $more = 1;
      while ($more && length $s->{out} <= $LIMIT) {
        my $before = length $s->{out};
        pump($s, @$_) for ['stdout', 'O'], ['stderr', 'X'];
        $more = length $s->{out} > $before;
      }
      if (!$more) {
        if (defined $s->{why}) { frame($s, 'F', $s->{why}) } else { frame($s, 'D', pack('VV', $s->{status} >> 8, $s->{status} & 127)) }
        if ($s->{keep}) { again($s) } else { $s->{done} = $s->{closing} = 1 }
      }
    }
    feed($s) if length $s->{stdin_data} || $s->{stdin_end};
    if (length $s->{out}) {
      my $n = syswrite($sock, $s->{out}, $CHUNK);
      if ($n) { substr($s->{out}, 0, $n) = '' }
      elsif ($! + 0 != $EAGAIN && $! + 0 != $EINTR) { finish($s); next }
    }
    finish($s) if $s->{closing} && !length $s->{out};
  }
}
`;
