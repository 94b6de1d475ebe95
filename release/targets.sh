# shellcheck shell=sh disable=SC2034
# The machines multusd is built for. Sourced by the scripts beside it: `target NAME` sets what is
# particular to one of them.
#
#   triple        the Rust target
#   c_target      the same machine, to clang
#   c_flags       instruction set and float ABI: exactly what rustc assumes for the triple
#   rust_flags    what pays off on this machine, with the reason

targets='aarch64 armv7 armv6 x86_64'

target() {
	case $1 in
	aarch64) # Pi 3, 4, 5, Zero 2
		triple=aarch64-unknown-linux-musl
		c_target=aarch64-linux-musl
		c_flags='-march=armv8-a -mno-outline-atomics'
		# Calls that choose between two kinds of atomics at run time: 4 kB that a supervisor with one
		# thread has no use for. Load/store exclusive works on every Pi.
		rust_flags='-Ctarget-feature=-outline-atomics'
		# Functions save and restore their registers by calling shared code: 13 kB.
		rust_flags="$rust_flags -Cllvm-args=-homogeneous-prolog-epilog"
		c_flags="$c_flags -mllvm -homogeneous-prolog-epilog"
		# All of it is within 1 MB of any instruction, so that an address takes one instead of two: 9 kB.
		# The linker refuses what gets larger.
		if [ -z "${LARGE:-}" ]; then
			rust_flags="$rust_flags -Ccode-model=tiny"
			c_flags="$c_flags -mcmodel=tiny"
		fi
		;;
	armv7) # Pi 2, 3 with a 32-bit system
		triple=armv7-unknown-linux-musleabihf
		c_target=arm-linux-musleabihf
		c_flags='-march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=hard -mthumb'
		# Thumb-2: a fifth smaller.
		rust_flags='-Ctarget-feature=+thumb-mode'
		;;
	armv6) # Pi 1, Zero
		triple=arm-unknown-linux-musleabihf
		c_target=arm-linux-musleabihf
		c_flags='-march=armv6 -mfpu=vfp -mfloat-abi=hard -marm'
		rust_flags=
		;;
	x86_64) # containers, tests
		triple=x86_64-unknown-linux-musl
		c_target=x86_64-linux-musl
		c_flags='-march=x86-64'
		rust_flags=
		;;
	*)
		echo "there is no target '$1'; there are: $targets" >&2
		return 2
		;;
	esac
}
