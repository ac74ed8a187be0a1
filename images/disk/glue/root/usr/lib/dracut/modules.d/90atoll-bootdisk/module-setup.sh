#!/bin/bash
# The disk that was booted from, and no other: see bootdisk.sh.
check() {
	return 0
}

depends() {
	echo systemd udev-rules
}

install() {
	inst_multiple bash mkdir sleep udevadm
	inst_script "$moddir/bootdisk.sh" /usr/lib/atoll/bootdisk
	inst_simple "$moddir/atoll-bootdisk.service" "$systemdsystemunitdir/atoll-bootdisk.service"
	$SYSTEMCTL -q --root "$initdir" add-wants initrd.target atoll-bootdisk.service
	# What a definition adds to Ignition may write to disks by names of its own.
	$SYSTEMCTL -q --root "$initdir" add-requires ignition-disks.service atoll-bootdisk.service
}
