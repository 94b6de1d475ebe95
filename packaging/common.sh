# shellcheck shell=bash
# What the scripts here agree on. Sourced with the project's folder as the working directory.

# From here on nothing depends on who runs it, where and when.
export LC_ALL=C TZ=UTC0
umask 022

# The one version there is.
# shellcheck disable=SC2034
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

# Where things are made.
made=${CARGO_TARGET_DIR:-$PWD/target}

# The time of everything that is made: that of the last commit; of an unpacked source archive, that of its changelog.
if [[ -z ${SOURCE_DATE_EPOCH:-} ]]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || dpkg-parsechangelog -S Timestamp)
fi
export SOURCE_DATE_EPOCH

# Every file of the sources, ended by NUL.
sources() {
	if git rev-parse --git-dir >/dev/null 2>&1; then
		git ls-files -z --cached --others --exclude-standard | sort -z
	else
		find . -path ./target -prune -o \( -type f -o -type l \) -print0 | sort -z
	fi
}

# executables NAME…: what release/build makes for these machines; what is there already is taken as it is.
executables() {
	local name
	for name in "$@"; do
		if [[ ! -x $made/dist/$name/multusd ]]; then release/build "$name"; fi
	done
}
