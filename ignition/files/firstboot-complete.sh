#!/bin/sh
# End the first boot: from now on the loader finds only the entry without Ignition.
#
# A power cut at any point is harmless. Before the entry is gone, the next boot runs
# Ignition again, which writes the same files. The entry goes only when all that
# Ignition wrote is on the disk, and before the configuration, so there is never an
# entry that names a file that is not there. A configuration left over is removed at
# the next boot: this script runs as long as there is one.
set -eu
esp=/boot/efi
sync
# FAT has no journal: synchronous writes keep its directory ahead of its table.
mount -o remount,sync "$esp"
rm -f "$esp/loader/entries/atoll-firstboot.conf"
sync -f "$esp"
rm -f "$esp/atoll/ignition.img"
sync -f "$esp"
