require multusd.inc
require multusd-crates.inc

# A release is fetched from its address, by the commit of its tag. Before that, the source is the tree in which this layer lies, as
# committed. (No name= with destsuffix=: cargo's class would patch crates by it.)
MULTUSD_TREE ?= "${@os.path.realpath(d.expand('${THISDIR}/../../..'))}"
MULTUSD_SOURCE ?= "${@d.expand('git://github.com/multusd/multusd.git;protocol=https;branch=main' if d.getVar('MULTUSD_REVISION') else 'git://${MULTUSD_TREE};protocol=file;nobranch=1')}"
SRC_URI =+ "${MULTUSD_SOURCE};destsuffix=${BP} "
SRCREV = "${@d.getVar('MULTUSD_REVISION') or oe.buildcfg.get_metadata_git_revision(d.getVar('MULTUSD_TREE'))}"
# A new commit of the tree is a new source.
BB_DONT_CACHE = "${@'' if d.getVar('MULTUSD_REVISION') else '1'}"

inherit cargo bash-completion

python () {
    if d.getVar('MULTUSD_RUST_IS_OLD'):
        raise bb.parse.SkipRecipe(d.expand("multusd ${PV} needs rustc ${MULTUSD_RUST} or newer, and this series has rustc ${MULTUSD_RUST_HERE}: take multusd-bin"))
    if d.getVar('SRCREV') == '<unknown>' and not bb.data.inherits_class('externalsrc', d):
        raise bb.parse.SkipRecipe(d.expand("${MULTUSD_TREE} is no git checkout: set MULTUSD_TREE to one, or use externalsrc"))
}

# The profile of Cargo.toml is for size, and is used as it is; only stripping is left to the packaging, which keeps the symbols.
export CARGO_PROFILE_RELEASE_STRIP = "none"
# Nothing unwinds (panic = abort), so nobody reads the tables.
RUSTFLAGS:append = " -C force-unwind-tables=no"
# One executable without libraries. Of the C libraries musl is the one made for it; its libunwind.a comes by way of libstd-rs.
RUSTFLAGS:append:libc-musl = " -C target-feature=+crt-static"
# 32-bit time ends in 2038. What .cargo/config.toml says for rustup's targets, whose names are others here.
RUSTFLAGS:append:libc-musl:arm = " --cfg libc_unstable_musl_v1_2"

MULTUSD_EXECUTABLE = "${B}/target/${CARGO_TARGET_SUBDIR}/multusd"
MULTUSD_INIT = "${S}/packaging/init"
MULTUSD_SAMPLE = "${S}/board/multusd.cfg"
MULTUSD_AUTOBOOT = "${S}/board/autoboot.txt"
MULTUSD_THIRD_PARTY = "${S}/packaging/THIRD-PARTY"

do_install:append() {
    for page in ${S}/man/*.[1-8]; do
        install -D -m 0644 $page ${D}${mandir}/man${page##*.}/$(basename $page)
    done
    install -D -m 0644 ${S}/completions/multusctl.bash ${D}${datadir}/bash-completion/completions/multusctl
}
