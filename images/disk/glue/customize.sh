#!/bin/sh
# After the packages, in their root $1: our files, the units that are enabled, the
# initramfs. What is not for the root file system goes to the folder above it.
set -eu
root=$1
out=$(dirname "$root")
cp -r "$out/glue/root/." "$root/"
chroot "$root" systemd-sysusers atoll.conf
chroot "$root" systemctl preset-all
# Enabling systemd-networkd enables this too, at every first boot. There may be no network.
ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"

kernel=$(ls "$root/lib/modules")
case $kernel in
[!0-9]* | *[!0-9A-Za-z.+~-]* | "")
	echo "not the name of one kernel: $kernel" >&2
	exit 1
	;;
esac
chroot "$root" depmod "$kernel"
chroot "$root" dracut --force "/boot/initrd.img" "$kernel"
# dracut drops a module that lacks something, and goes on.
chroot "$root" lsinitrd /boot/initrd.img >"$out/initrd.list"
for file in usr/bin/ignition usr/lib/systemd/system/ignition-files.service \
	usr/lib/atoll/bootdisk usr/lib/systemd/system/atoll-bootdisk.service; do
	if ! grep -q " $file\$" "$out/initrd.list"; then
		echo "the initramfs lacks $file" >&2
		exit 1
	fi
done
mv "$root/boot/initrd.img" "$out/initrd.img"
mv "$root/boot/vmlinuz-$kernel" "$out/vmlinuz"
cp "$root/usr/lib/systemd/boot/efi/systemd-bootx64.efi" "$out/systemd-bootx64.efi"
chroot "$root" dpkg-query --show --showformat='${Package} ${Version}\n' >"$out/packages"
