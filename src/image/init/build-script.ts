/**
 * What the builder guest runs: Debian's own mke2fs and dpkg put packages from a DVD onto the disk. On standard output are "@step what"
 * and "@failed what", and dpkg's status lines (dpkg(1), --status-fd); all else is a log, whose end is told when a step fails.
 */

/** Files of the DVD, beside the packages. */
export const PAYLOAD = {
  script: "BUILD.SH",
  /** The data archives of the essential packages, one after the other: what dpkg itself needs to run. Not for a disk that has them. */
  base: "BASE.TAR",
  /** Names of packages on the DVD, in the order of installation, a line each. */
  essential: "ESSENT.TXT",
} as const;

/** The lists of the other packages, one for each run of dpkg. */
export const payloadLayer = (n: number): string => `LAYER${String(n).padStart(3, "0")}.TXT`;

/** Name of the n-th package on the DVD. */
export const payloadPackage = (n: number): string => `${String(n).padStart(5, "0")}.DEB`;

/** Linux shows an ISO's names in lower case. */
export const shownName = (name: string): string => name.toLowerCase();

/** What the host runs in the builder. */
export const BUILD_COMMAND = `mkdir /payload && mount -t iso9660 -o ro /dev/sr0 /payload && exec sh /payload/${shownName(PAYLOAD.script)}`;

const HEAD = `#!/bin/sh
R=/mnt/root
LOG=/run/build.log
step() { now=$1; echo "@step $1"; }
fail() {
  echo "@failed $now"
  tail -n 40 $LOG >&2
  exit 1
}
run() { "$@" >>$LOG 2>&1 </dev/null || fail; }
# Full names: this shell takes a name of busybox for busybox.
inside() { run chroot $R "$@"; }
dpkg() {
  list=$1
  shift
  for name in $(cat $list); do set -- "$@" /run/payload/$name; done
  chroot $R /usr/bin/dpkg --force-unsafe-io --no-pager --status-fd 3 "$@" 3>&1 >>$LOG 2>&1 </dev/null || fail
}
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C LANGUAGE=C HOME=/root
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p $R
`;

/** When this machine dies the disk is thrown away: no barriers, no order between data and journal. */
const MOUNT = `run mount -t ext4 -o noatime,nobarrier,data=writeback,commit=600 /dev/sda $R
`;

const MAKE = (uuid: string): string => `
step "making the file system"
# The file is new, so it reads as zero: nothing has to be cleared, now or after the first mount.
run /usr/sbin/mke2fs -q -F -t ext4 -b 4096 -m 1 -L root -U ${uuid} \\
  -E nodiscard,lazy_journal_init=1,lazy_itable_init=1,assume_storage_prezeroed=1 /dev/sda
${MOUNT}# Debian's merged /usr
for place in bin sbin lib lib32 lib64 libx32; do
  mkdir -p $R/usr/$place
  ln -s usr/$place $R/$place
done
mkdir -p $R/dev $R/proc $R/sys $R/run $R/tmp $R/etc $R/var/lib/dpkg/info $R/var/lib/dpkg/updates
`;

const ENTER = `
run mount -t proc proc $R/proc
run mount -t sysfs sysfs $R/sys
run mount -o bind /dev $R/dev
run mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts $R/dev/pts
run mount -t tmpfs tmpfs $R/run
run mount -t tmpfs tmpfs $R/tmp
mkdir -p $R/run/payload $R/run/lock
run mount -o bind /payload $R/run/payload
# services stay as they are: this is no running system
mkdir -p $R/usr/sbin
printf '#!/bin/sh\\nexit 101\\n' >$R/usr/sbin/policy-rc.d
chmod 755 $R/usr/sbin/policy-rc.d
`;

const ESSENTIAL = `
step "unpacking the essential packages"
run tar x --numeric-owner -f /payload/${shownName(PAYLOAD.base)} -C $R
: >$R/var/lib/dpkg/status
: >$R/var/lib/dpkg/available
# names for files' owners, until base-passwd's own script has run
for file in passwd group; do [ -e $R/etc/$file ] || run cp $R/usr/share/base-passwd/$file.master $R/etc/$file; done
# no /vmlinuz and /initrd.img: no boot loader looks here
echo 'do_symlinks = no' >$R/etc/kernel-img.conf
# the SSH server's script makes keys where there are none, for a minute; these go again, and each machine makes its own
mkdir -p $R/etc/ssh
for kind in rsa ecdsa ed25519; do : >$R/etc/ssh/ssh_host_\${kind}_key; done
step "installing the essential packages"
dpkg /payload/${shownName(PAYLOAD.essential)} --force-depends --install
`;

const INSTALL = (what: string): string => `
step "installing ${what}"
for list in /payload/layer*.txt; do dpkg $list --install; done
step "checking the packages"
audit=$(chroot $R /usr/bin/dpkg --audit 2>&1)
[ -z "$audit" ] || { echo "$audit" >>$LOG; fail; }
inside /usr/bin/apt-get check
`;

const SET_UP = (hostName: string, uuid: string): string => `
step "setting the system up"
echo ${hostName} >$R/etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 ${hostName}\\n::1 localhost ip6-localhost ip6-loopback\\n' >$R/etc/hosts
echo 'UUID=${uuid} / ext4 errors=remount-ro,x-systemd.growfs 0 1' >$R/etc/fstab
echo 'LANG=C.UTF-8' >$R/etc/default/locale
# the console belongs to the host's user; ssh takes no empty password
inside /usr/bin/passwd -d root
mkdir -p $R/etc/network
[ -e $R/etc/network/interfaces ] || printf 'source /etc/network/interfaces.d/*\\n\\nauto lo\\niface lo inet loopback\\n' >$R/etc/network/interfaces
mkdir -p $R/etc/network/interfaces.d
printf 'allow-hotplug eth0\\niface eth0 inet dhcp\\n' >$R/etc/network/interfaces.d/eth0
`;

/**
 * Each machine gets an identity of its own when it first starts: nothing of one may be in what all are copied from. An empty
 * machine-id, other than none, does not mean "first boot", with all its presets.
 */
const LEAVE = `
rm $R/usr/sbin/policy-rc.d
: >$R/etc/machine-id
rm -f $R/var/lib/dbus/machine-id $R/var/lib/systemd/random-seed $R/var/lib/systemd/credential.secret $R/etc/ssh/ssh_host_*
# what systemd would do once after /usr has changed is done: the packages' scripts have done it
[ -x $R/usr/lib/systemd/systemd-update-done ] && inside /usr/lib/systemd/systemd-update-done
rm -rf $R/var/cache/apt/*.bin $R/var/log/dpkg.log $R/var/log/alternatives.log $R/var/log/bootstrap.log $R/var/lib/dpkg/*-old

step "closing the file system"
run umount $R/run/payload $R/run $R/tmp $R/dev/pts $R/dev $R/sys $R/proc
run umount $R
sync
echo "@done"
`;

/** Makes the disk from nothing. @param uuid the root file system's */
export const buildScript = (hostName: string, uuid: string): string =>
  [HEAD, MAKE(uuid), ENTER, ESSENTIAL, INSTALL("the other packages"), SET_UP(hostName, uuid), LEAVE].join("");

/** Installs more packages on a disk that the other script has made. */
export const extendScript = (): string =>
  [HEAD, 'step "opening the disk"\n', MOUNT, ENTER, INSTALL("the packages"), LEAVE].join("");
