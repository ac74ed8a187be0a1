#!/bin/sh
# End the first boot: from now on the loader finds only the entry without Ignition.
#
# A power cut at any point is harmless:
# - Until the entry is gone the next boot runs Ignition again, which writes the same.
#   So the entry goes only when all that Ignition wrote is on the disk.
# - FAT has no journal, and a disk writes in an order of its own. A file that is deleted
#   may come back with its name but not its contents, and the loader stops at such an
#   entry. So the entry is renamed, which changes one sector, and that is flushed (fsync
#   of a folder does; syncfs of FAT does not) before anything else.
# - The configuration, which may hold secrets, is overwritten and removed last. If it is
#   left over the next boot removes it: this script runs as long as it is there.
set -eu
entries=/boot/efi/loader/entries
config=/boot/efi/atoll/ignition.img

sync
if [ -e "$entries/atoll-firstboot.conf" ]; then
	mv "$entries/atoll-firstboot.conf" "$entries/done"
	sync "$entries"
fi
rm -f "$entries/done"
if [ -e "$config" ]; then
	shred --iterations=0 --zero "$config"
	rm -f "$config"
fi
sync "$entries" "${config%/*}"
