#!/bin/sh
# post-build.sh TARGET_DIR BOARD [ab]: what the card's other partitions ask of the root file system, which is read-only.
# Run by Buildroot when the target's files are complete; as often as somebody says `make`, so nothing is done twice.
set -eu

target=$1
mkdir -p "$target/boot" "$target/data" "$target/var/lib"
# What must survive a reset. Dangling until the data partition is mounted.
[ -L "$target/var/lib/multusd" ] || rmdir "$target/var/lib/multusd" 2>/dev/null || :
ln -sfn /data/multusd "$target/var/lib/multusd"

# mount FROM AT TYPE OPTIONS
mount_at_boot() {
	grep -q "[[:space:]]$2[[:space:]]" "$target/etc/fstab" || printf '%s\t%s\t%s\t%s\t0\t0\n' "$@" >>"$target/etc/fstab"
}
# By their labels, on a card as on a disk. A partition that is broken keeps nobody from booting (nofail): there is
# /etc/multusd.cfg, too.
mount_at_boot LABEL=MULTUSD /boot vfat ro,nofail,noatime,umask=0077
mount_at_boot LABEL=data /data ext4 rw,nofail,noatime,errors=remount-ro
mount_at_boot cgroup2 /sys/fs/cgroup cgroup2 nosuid,nodev,noexec,nofail
