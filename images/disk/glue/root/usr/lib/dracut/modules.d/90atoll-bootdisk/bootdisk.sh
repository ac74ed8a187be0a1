#!/bin/bash
# Find the disk that was booted from: the one with the partition that the kernel's argument
# atoll.root= names. Its partitions, and no other disk's, get links in /dev/disk/atoll, and
# nothing on the node is found in another way: labels and IDs are the same on every copy of
# an image. The rule that makes the links lies in /run and so holds for the real root too.
#
# Two disks with that partition are two copies of one image. Only the firmware knows which
# it started, so this stops before anything of either is mounted.

# A disk that was found is taken when for so many seconds no other came: USB finds its
# devices by itself, and nothing tells when it has found all.
calm=3
# Disks behind USB that are there but not yet ready are waited for so long.
patience=15
# The time that a message stays on the screen before the machine goes off.
reading=60

say() {
	local tty rest
	while read -r tty rest; do
		printf 'atoll: %s\r\n' "$@" >"/dev/$tty"
	done </proc/consoles
}

# partitions lists the partitions with the ID $1, by their folders in /sys.
partitions() {
	udevadm trigger --dry-run --verbose --subsystem-match=block --property-match="ID_PART_ENTRY_UUID=$1"
}

# first prints the first of the files that says something.
first() {
	local file text
	for file; do
		text=
		{ read -r text <"$file"; } 2>/dev/null # fails also where no line ends
		if [ -n "$text" ]; then
			echo "${text//[^[:print:]]/?}" # a terminal obeys what a disk says
			return
		fi
	done
	echo unknown
}

# describe tells people which disk the folder $1 is.
describe() {
	local sectors=0 serial
	read -r sectors <"$1/size"
	serial=$(udevadm info --query=property --property=ID_SERIAL_SHORT --value --path="$1")
	serial=${serial:-$(first "$1/serial" "$1/device/serial" "$1/device/wwid" "$1/wwid")}
	echo "  /dev/${1##*/}: model $(first "$1/device/model" "$1/device/name"), serial $serial, $((sectors / 2048)) MiB"
}

disks() {
	local disk sectors
	for disk in /sys/block/*; do
		read -r sectors <"$disk/size"
		case ${disk##*/} in loop* | ram* | zram* | sr* | fd*) continue ;; esac
		[ "$sectors" -eq 0 ] || describe "$disk"
	done
}

# pending says whether a disk behind USB has come that is not ready yet.
pending() {
	local class kind node
	for class in /sys/bus/usb/devices/*/bInterfaceClass; do
		read -r kind <"$class" || continue
		[ "$kind" = 08 ] || continue # mass storage
		for node in "${class%/*}"/host*/target*/*/block/*; do
			[ -e "$node" ] && continue 2
		done
		return 0
	done 2>/dev/null
	return 1
}

read -r line </proc/cmdline
id=
for word in $line; do
	case $word in atoll.root=*) id=${word#*=} ;; esac
done

told=
while udevadm settle --timeout=120; found=$(partitions "$id"); [ -z "$found" ]; do
	if [ -z "$told" ] && [ "$SECONDS" -ge "$reading" ]; then
		told=yes
		say "waiting for the disk that was booted from: none has the partition $id." "Disks that were found:"
		disks | while IFS= read -r line; do say "$line"; done
	fi
	sleep 1
done

if [ -e /sys/bus/usb/devices/usb1 ]; then
	since=$SECONDS before=
	for ((end = SECONDS + patience; SECONDS < end; )); do
		now=$(echo /sys/class/block/*)
		if [ "$now" != "$before" ] || pending; then
			before=$now since=$SECONDS
		fi
		[ $((SECONDS - since)) -lt "$calm" ] || break
		sleep 1
	done
	udevadm settle --timeout=120
	found=$(partitions "$id")
fi

case $found in *$'\n'*)
	kill -s RTMIN+21 1 # no status of systemd's between the lines: systemd(1)
	say "not booting: two disks hold the same image, and only one of them can be the right one:"
	while IFS= read -r path; do
		say "$(describe "${path%/*}")"
	done <<<"$found"
	say "Remove all but one of them and start again. Nothing on them was changed." \
		"This machine goes off in $reading seconds."
	sleep "$reading"
	exit 1
	;;
esac

disk=${found%/*} parts=()
read -r number <"$disk/dev"
mkdir -p /run/udev/rules.d
for name in esp root bundle data; do
	echo 'SUBSYSTEM=="block", ENV{DEVTYPE}=="partition", ENV{ID_PART_ENTRY_DISK}=="'"$number"'",' \
		'ENV{ID_PART_ENTRY_NAME}=="atoll-'$name'", SYMLINK+="disk/atoll/'$name'"'
done >/run/udev/rules.d/65-atoll.rules
udevadm control --reload
for part in "$disk"/*/partition; do
	parts+=("${part%/*}")
done
udevadm trigger --settle --action=change "${parts[@]}"
