/**
 * The guest's first process and the few files it works with, for busybox's shell.
 *
 * On an emulated processor a fork with exec costs some 300,000 instructions, so init does what it can with builtins
 * (`read`, `echo`, globs), mounts by one `mount -a`, fills /dev by one `cp`, and loads all drivers by one `modprobe`.
 * Without a VMBus it touches no module at all.
 */

import { AGENT_PERL } from "./agent.js";

/** Counts up when the way a guest is put together changes; texts and lists count by themselves (`guestRecipe`). */
export const RECIPE_VERSION = 4;

/**
 * The first process is busybox's init: it starts SESSION, takes in orphans, and ends the system when it is told to.
 * (A shell as first process would do for that, but what it starts in the background cannot have Ctrl-C, and what it
 * waits for in the foreground keeps it from acting on signals.)
 */
export const INITTAB = `::once:/etc/enlighten/session
::ctrlaltdel:/sbin/reboot
::shutdown:/sbin/poweroff --unmount-only
`;

const PERL = `/${AGENT_PERL}`;

/** From bare kernel to prompt or command, and power off after it. */
export const SESSION = `#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -a
cp -a /etc/enlighten/dev/. /dev/
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
read -r name </etc/hostname && echo "$name" >/proc/sys/kernel/hostname

# Sleeps without a process: nobody ever writes to this pipe.
pause() { read -r -t "$1" name <>/etc/enlighten/pause; }

# Prints the aliases of all VMBus devices, once their number has stopped growing: offers arrive one by one.
offers() {
  seen=-1
  for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    set -- /sys/bus/vmbus/devices/*/modalias
    [ -e "$1" ] || set --
    [ $# -gt 0 ] && [ $# -eq $seen ] && break
    seen=$#
    pause 0.05
  done
  aliases=
  for file; do read -r alias <"$file" && aliases="$aliases $alias"; done
}

# A lease takes some ms: commands find the network up. Where nobody answers in a second it is asked for beside them, and where no
# cable is plugged in not at all. IPv6 is the kernel's.
network() {
  [ -e /sys/class/net/eth0 ] || return
  ifconfig eth0 up
  read -r carrier </sys/class/net/eth0/carrier
  [ "$carrier" = 1 ] || return
  read -r name </etc/hostname
  udhcpc -i eth0 -b -t 2 -T 1 -x "hostname:$name" >/dev/null 2>&1
}

vmbus() {
  modprobe hv_vmbus 2>/dev/null || return
  echo online >/sys/devices/system/memory/auto_online_blocks
  offers
  [ -n "$aliases" ] || return
  more=
  # SCSI and IDE controllers want the drivers of what hangs on them, the mouse that of its reports.
  case $aliases in *:d96361ba* | *:32264132*) more="sd_mod sr_mod" ;; esac
  case $aliases in *:9eb6a8cf*) more="$more hid_generic evdev" ;; esac
  # Disks get their names in the order of their LUNs if each is added before the next is looked for, with its driver there.
  [ -n "$more" ] && modprobe scsi_mod scan=sync 2>/dev/null
  modprobe -a $more $aliases hv_sock 2>/dev/null
  network
  if [ -e /etc/enlighten/by-agent ] && [ -x ${PERL} ]; then
    read -r by_agent </etc/enlighten/by-agent
    HOME=/root ${PERL} /etc/enlighten/agent </dev/null >/dev/null 2>&1 &
  fi
  for daemon in kvp vss fcopy; do
    [ -e /dev/vmbus/hv_$daemon ] && [ -x /usr/sbin/hv_\${daemon}_daemon ] && hv_\${daemon}_daemon
  done
}

ifconfig lo 127.0.0.1 up
set -- /sys/bus/acpi/devices/VMB[Uu][Ss]:*
[ -e "$1" ] && vmbus

cd /root
# The agent runs the command, and the host ends the machine through the shutdown service.
[ "$by_agent" = exec ] && exit 0
if [ -e /etc/enlighten/exec ] && [ -z "$by_agent" ]; then
  stty raw -echo 115200 </dev/ttyS1
  stty raw -echo 115200 </dev/ttyS2
  stty raw -echo 115200 </dev/ttyS3
  echo ready >/dev/ttyS3
  (
    . /etc/enlighten/env
    exec sh /etc/enlighten/exec
  ) </dev/null >/dev/ttyS1 2>/dev/ttyS2
  code=$?
  # Setting a terminal waits until all its output has left: a process that lives on may still hold it open.
  stty raw </dev/ttyS1
  stty raw </dev/ttyS2
  echo "exit $code" >/dev/ttyS3
  exec /sbin/poweroff
fi

read -r console </sys/class/tty/console/active
console=/dev/\${console##* }
[ -c "$console" ] || console=/dev/ttyS0
setsid -c sh -l <>"$console" >&0 2>&1
exec /sbin/poweroff
`;

/**
 * Also /sbin/reboot and /sbin/halt: what the shell's users and the kernel call (it does when the host asks for a
 * shutdown). Quicker than through init, which gives every process two seconds.
 */
export const POWEROFF = `#!/bin/sh
# Unmounts what is on a disk, then leaves at once. With any other option it is busybox's own.
what=\${0##*/}
[ $# -gt 0 ] && [ "$1" != --unmount-only ] && exec busybox "$what" "$@"
sync
while read -r device directory rest; do
  case $device in /dev/*) umount "$directory" 2>/dev/null || mount -o remount,ro "$directory" 2>/dev/null ;; esac
done </proc/mounts
[ $# -eq 0 ] && exec busybox "$what" -f
`;

export const FSTAB = `proc /proc proc nosuid,nodev,noexec 0 0
sysfs /sys sysfs nosuid,nodev,noexec 0 0
devtmpfs /dev devtmpfs nosuid,mode=0755 0 0
tmpfs /run tmpfs nosuid,nodev,mode=0755 0 0
tmpfs /tmp tmpfs nosuid,nodev,mode=1777 0 0
`;

/** What udhcpc runs when the network answers. */
export const DHCP_SCRIPT = `#!/bin/sh
case $1 in
deconfig) ifconfig "$interface" up 0.0.0.0 ;;
bound | renew)
  ifconfig "$interface" "$ip" netmask "\${subnet:-255.255.255.0}"
  for gateway in $router; do route add default gw "$gateway" dev "$interface" 2>/dev/null; done
  {
    [ -n "$domain" ] && echo "search $domain"
    for server in $dns; do echo "nameserver $server"; done
  } >/etc/resolv.conf
  ;;
esac
`;

/** @param reference what the user called the guest, shown in the prompt */
export const profile = (reference: string): string => `PS1='${reference} \\w # '
alias ll='ls -l' poweroff=/sbin/poweroff reboot=/sbin/reboot halt=/sbin/halt
`;
