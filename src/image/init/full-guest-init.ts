/** What a systemd guest has from us: the initramfs's first process, and the package that is on its disk. */
import { encodeUtf8 } from "../byte-reader.js";
import { writeDeb } from "../deb.js";
import type { NewTarEntry } from "../tar-writer.js";
import { AGENT } from "./agent.js";

/** What stands between the kernel and the root disk. */
export const ROOT_MODULES: readonly string[] = ["hv_vmbus", "hv_storvsc", "sd_mod", "ext4", "crc32c_generic"];

/**
 * Finds the root disk by its place, LUN 0 of the first controller: names (sda) go by chance, labels and UUIDs may be there twice
 * when a second such disk is attached. What the boot's cpio brought is in /run then, which the disk's /etc/enlighten points to.
 */
export const ROOT_INIT = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev
mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /run
fail() {
  echo "enlighten: $1: the guest cannot start" >/dev/console
  poweroff -f
}
modprobe -a ${ROOT_MODULES.join(" ")}
echo online >/sys/devices/system/memory/auto_online_blocks
disk=
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
  for file in /sys/bus/scsi/devices/*:0:0:0/block/*; do
    [ -e "$file" ] && [ -b "/dev/\${file##*/}" ] && disk=/dev/\${file##*/} && break 2
  done
  sleep 0.2
done
[ -n "$disk" ] || fail "there is no disk at LUN 0"
mount -t ext4 -o rw "$disk" /root || fail "the root file system cannot be mounted"
# apt's mirror is the host's of today: a new disk gets it, and keeps what its owner makes of it
[ -e /root/etc/apt/sources.list ] || [ ! -e /etc/enlighten/sources.list ] || cp /etc/enlighten/sources.list /root/etc/apt/
mkdir /run/enlighten
cp -a /etc/enlighten/. /run/enlighten/
for place in dev proc sys run; do mount -o move /$place /root/$place; done
exec switch_root /root /sbin/init
`;

const AGENT_UNIT = `[Unit]
Description=enlighten's agent: commands from the host over Hyper-V sockets
Documentation=man:vsock(7)
ConditionVirtualization=microsoft
After=local-fs.target systemd-user-sessions.service dbus.socket

[Service]
# the kernel has no alias for it: no VMBus device asks for the driver before somebody listens
ExecStartPre=-/sbin/modprobe hv_sock
ExecStart=/usr/bin/perl /usr/lib/enlighten/agent
Environment=HOME=/root LANG=C.UTF-8
Restart=on-failure
RestartSec=2
# what it runs is the host's, and the host limits and ends it
TasksMax=infinity
LimitNOFILE=524288
OOMPolicy=continue
KillMode=mixed
TimeoutStopSec=5

[Install]
WantedBy=multi-user.target
`;

const HOST_KEYS = ["ecdsa", "ed25519"];

/**
 * Host keys are a machine's own: the image has none. No RSA key is made: it takes half a minute here, at every first start, and
 * clients have known the others for ten years. ("ssh-keygen -A" makes one for who needs it.)
 */
const HOST_KEYS_UNIT = `[Unit]
Description=SSH host keys of this machine
Documentation=man:ssh-keygen(1)
ConditionFileIsExecutable=/usr/bin/ssh-keygen
${HOST_KEYS.map((kind) => `ConditionFileNotEmpty=|!/etc/ssh/ssh_host_${kind}_key`).join("\n")}
Before=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
${HOST_KEYS.map((kind) => `ExecStart=/bin/sh -c 'f=/etc/ssh/ssh_host_${kind}_key; [ -s $$f ] || { rm -f $$f; ssh-keygen -q -t ${kind} -N "" -f $$f; }'`).join("\n")}

[Install]
WantedBy=ssh.service
`;

const AUTOLOGIN = `# The console is the host's user's own.
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,57600,38400,9600 - $TERM
`;

/** Name of our own package on the disk. */
export const GUEST_PACKAGE = "enlighten-guest";
const GUEST_PACKAGE_VERSION = "2";

const CONTROL = `Package: ${GUEST_PACKAGE}
Version: ${GUEST_PACKAGE_VERSION}
Architecture: all
Maintainer: enlighten <enlighten@localhost>
Depends: perl-base, systemd
Provides: linux-initramfs-tool
Section: misc
Priority: optional
Description: what enlighten adds to a guest
 The agent that takes commands from the host over Hyper-V sockets, and a
 console that needs no password, and SSH host keys of its own. The host starts the kernel and brings the
 initramfs: no tool that makes one is needed here.
`;

const UNITS = "usr/lib/systemd/system";

/** The package as an index would have it: name, version, relations. */
export const GUEST_PACKAGE_CONTROL = CONTROL;

/** That kernel's modules are the root disk's, so the package depends on an initramfs tool: ours stands for it. */
export function guestPackage(): Uint8Array<ArrayBuffer> {
  const directories = [
    "etc",
    "usr",
    "usr/lib",
    "usr/lib/enlighten",
    "usr/lib/systemd",
    UNITS,
    `${UNITS}/multi-user.target.wants`,
    `${UNITS}/serial-getty@ttyS0.service.d`,
    `${UNITS}/ssh.service.wants`,
  ];
  const file = (path: string, text: string, mode = 0o644): NewTarEntry => ({
    kind: "file",
    path,
    mode,
    data: encodeUtf8(text),
  });
  return writeDeb(CONTROL, [
    ...directories.map((path) => ({ kind: "directory", path, mode: 0o755 }) as const),
    { kind: "symlink", path: "etc/enlighten", target: "/run/enlighten" },
    file("usr/lib/enlighten/agent", AGENT),
    file(`${UNITS}/enlighten-agent.service`, AGENT_UNIT),
    {
      kind: "symlink",
      path: `${UNITS}/multi-user.target.wants/enlighten-agent.service`,
      target: "../enlighten-agent.service",
    },
    file(`${UNITS}/enlighten-ssh-keys.service`, HOST_KEYS_UNIT),
    {
      kind: "symlink",
      path: `${UNITS}/ssh.service.wants/enlighten-ssh-keys.service`,
      target: "../enlighten-ssh-keys.service",
    },
    file(`${UNITS}/serial-getty@ttyS0.service.d/enlighten.conf`, AUTOLOGIN),
  ]);
}
