#!/bin/sh
# post-image.sh BINARIES_DIR BOARD [ab]: the card's image from what Buildroot has made: sdcard.img, or with `ab` sdcard-ab.img,
# which has two systems of which the firmware boots one (docs: buildroot-package/README.md).
#
# BOARD is a table of ../boards.toml. The files of the boot partition are ../config.txt and ../cmdline.txt, made fit for
# Buildroot's kernel, and the configuration that is in the root file system, or the sample ../multusd.cfg.
set -eu

# From here on the bits depend on what is put together, not on who does it, where and when. The times on the card are those of
# the configuration's sources, where Buildroot knows them (BR2_REPRODUCIBLE).
export LC_ALL=C TZ=UTC0 MTOOLS_SKIP_CHECK=1
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}"
export E2FSPROGS_FAKE_TIME="$SOURCE_DATE_EPOCH" E2FSCK_TIME="$SOURCE_DATE_EPOCH"
umask 022

here=$(cd "$(dirname "$0")" && pwd)
board=$here/..
images=$1
name=$2
layout=${3:-one}
made=$images/multusd-boot

fail() {
	echo "post-image.sh: $*" >&2
	exit 1
}

# key NAME: its value in the board's table, a line for each of a list.
key() {
	sed -n "/^\\[$name\\]\$/,/^\\[/s/^$1 = //p" "$board/boards.toml" | sed -e 's/[]["]//g' -e 's/, */\n/g'
}
grep -qxF "[$name]" "$board/boards.toml" || fail "no board '$name': $(sed -n 's/^\[\(.*\)\]$/\1/p' "$board/boards.toml" | tr '\n' ' ')"
case $layout in
one | ab) ;;
*) fail "no layout '$layout': say ab, or nothing" ;;
esac

kernel=
for file in Image zImage; do
	if [ -e "$images/$file" ]; then kernel=$file; fi
done
[ -n "$kernel" ] || fail "no kernel in $images"

rm -rf "$made"
mkdir -p "$made/a" "$made/b"

# The Pi's kernel asks the firmware which UART is the console; it would have no control of memory without being told to.
console=$(key console)
words=
if [ -d "$images/rpi-firmware" ]; then console=serial0 words=' cgroup_enable=memory'; fi
# cmdline PARTITION: the root file system is found by the card's signature, which genimage.cfg.in has, too.
cmdline() {
	sed -e "s/@CONSOLE@/$console/" \
		-e "s|\$|$words root=PARTUUID=4d554c54-$1 rootfstype=ext4 ro rootwait|" "$board/cmdline.txt"
}
if [ "$layout" = ab ]; then
	cmdline 05 >"$made/a/cmdline.txt"
	cmdline 06 >"$made/b/cmdline.txt"
else
	cmdline 02 >"$made/a/cmdline.txt"
fi

{
	echo "# Made from multusd's board/config.txt."
	# No initramfs: the kernel finds its root file system. The device trees have the names of the Pi's own kernel.
	sed -e '/^#/d' -e '/^initramfs /d' -e '/^upstream_kernel=/d' "$board/config.txt" |
		while read -r line; do
			if [ "$line" = @SETTINGS@ ]; then key settings; else echo "$line"; fi
		done
} >"$made/config.txt"
: >"$made/outputs.txt"

config=${TARGET_DIR:+$TARGET_DIR/etc/multusd.cfg}
if [ -z "$config" ] || [ ! -e "$config" ]; then config=$board/multusd.cfg; fi
# Whoever edits it has Notepad, maybe an old one.
sed -e 's/\r$//' -e 's/$/\r/' "$config" >"$made/multusd.cfg"

# What a boot partition holds: boot_files FOLDER
boot_files() {
	printf '\t\t\tfile vmlinuz { image = "%s" }\n' "$kernel"
	printf '\t\t\tfile cmdline.txt { image = "multusd-boot/%s/cmdline.txt" }\n' "$1"
	printf '\t\t\tfile config.txt { image = "multusd-boot/config.txt" }\n'
	printf '\t\t\tfile outputs.txt { image = "multusd-boot/outputs.txt" }\n'
	printf '\t\t\tfiles = {\n'
	for file in "$images"/*.dtb "$images"/rpi-firmware/*; do
		case ${file##*/} in
		config.txt | cmdline.txt | '*' | '*.dtb') ;;
		*) if [ ! -d "$file" ]; then printf '\t\t\t\t"%s",\n' "${file#"$images"/}"; fi ;;
		esac
	done
	printf '\t\t\t}\n'
	# One by one: a folder that is copied as a whole has the time of that moment.
	for file in "$images"/rpi-firmware/*/*; do
		if [ -e "$file" ]; then
			printf '\t\t\tfile %s { image = "%s" }\n' "${file#"$images"/rpi-firmware/}" "${file#"$images"/}"
		fi
	done
}
# What boards before the Pi 4 want on the first partition: their boot ROM reads bootcode.bin, and that a config.txt.
first_files() {
	if [ -e "$images/rpi-firmware/bootcode.bin" ]; then
		printf '\t\t\tfile bootcode.bin { image = "rpi-firmware/bootcode.bin" }\n'
		printf '\t\t\tfile config.txt { image = "multusd-boot/config.txt" }\n'
	fi
}

template=$here/genimage.cfg.in
if [ "$layout" = ab ]; then
	template=$here/genimage-ab.cfg.in
	cp "$here/../autoboot.txt" "$made/autoboot.txt"
fi
while IFS= read -r line; do
	case $line in
	'#BOOT_FILES_A#') boot_files a ;;
	'#BOOT_FILES_B#') boot_files b ;;
	'#FIRST_FILES#') first_files ;;
	*'#TIMES#'*) printf '%s\n' "${line%'#TIMES#'*}$made/times${line#*'#TIMES#'}" ;;
	*) printf '%s\n' "$line" ;;
	esac
done <"$template" >"$made/genimage.cfg"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# The data partition's folders, root's and nobody else's: hence fakeroot.
mkdir -p "$root/data/multusd" "$root/data/programs" "$root/data/log"
chmod 755 "$root" "$root/data" "$root/data"/*
for folder in multusd programs log; do echo "set_inode_field /$folder ctime @$SOURCE_DATE_EPOCH"; done >"$made/times"
# On a FAT each file has the time of the one it was copied from.
find "$root" "$made" "$images"/*Image "$images"/*.dtb "$images/rpi-firmware" -exec touch -d "@$SOURCE_DATE_EPOCH" {} + 2>/dev/null || :
rm -rf "$made/tmp"
fakeroot genimage --rootpath "$root" --tmppath "$made/tmp" --inputpath "$images" --outputpath "$images" \
	--config "$made/genimage.cfg"
rm -rf "$made/tmp"
