#!/bin/sh
# When all is installed: remove from the root $1 what belongs to this build and this
# machine. No time in it is later than $2 (Unix seconds).
set -eu
root=$1
epoch=$2
cp "$(dirname "$root")/glue/root/etc/machine-id" "$root/etc/machine-id"
rm -rf "$root/etc/resolv.conf" "$root/etc/apt/sources.list" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" \
	"$root/etc/apt/apt.conf.d/99mmdebstrap" "$root"/etc/ssh/ssh_host_* "$root"/var/lib/apt/lists/* \
	"$root"/var/cache/apt/* "$root"/var/cache/ldconfig "$root"/var/cache/debconf/*-old "$root"/var/log/* "$root"/var/lib/dpkg/*-old "$root"/var/lib/systemd/random-seed \
	"$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- "$root"/etc/subgid- \
	"$root"/boot/* "$root"/vmlinuz* "$root"/initrd.img* "$root"/tmp/* "$root"/run/*
find "$root/dev" -mindepth 1 -delete
mkdir -p "$root/boot/efi" "$root/var/lib/rancher" "$root/var/log/journal" "$root/etc/rancher" \
	"$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
# The clock of a node without a battery starts here (systemd(1), clock-epoch).
touch "$root/usr/lib/clock-epoch"
find "$root" -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +
find "$root" -exec touch --no-dereference -a --date="@$epoch" {} +
