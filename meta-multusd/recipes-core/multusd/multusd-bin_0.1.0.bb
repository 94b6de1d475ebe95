require multusd.inc

SUMMARY .= ", as released"

PROVIDES += "multusd"

# Of the machines of a release the one that this one is, or nothing. The executable is static: which C library the image has,
# and how it passes floating-point numbers, does not matter.
def multusd_machine(d):
    arch = d.getVar('TARGET_ARCH')
    if arch in ('aarch64', 'x86_64'):
        return arch
    # The instruction set of a tune is among the overrides; its features name the core instead.
    sets = (d.getVar('MACHINEOVERRIDES') or '').split(':')
    tune = (d.getVar('TUNE_FEATURES') or '').split()
    if arch == 'arm' and 'vfp' in tune:
        if any(one in sets for one in ('armv7a', 'armv7ve', 'armv8a')):
            return 'armv7'
        if 'armv6' in sets:
            return 'armv6'
    return ''

MULTUSD_MACHINE = "${@multusd_machine(d)}"

python () {
    if not d.getVar('MULTUSD_MACHINE'):
        raise bb.parse.SkipRecipe(d.expand("multusd is released for aarch64, armv7, armv6 (both with vfp) and x86_64, and not for ${TARGET_ARCH} with ${TUNE_FEATURES}"))
}

# Where the archives are: a release's address, or file:///… of a folder with what packaging/artefacts made.
MULTUSD_ARCHIVES ?= "https://github.com/multusd/multusd/releases/download/v${PV}"
SRC_URI =+ "${MULTUSD_ARCHIVES}/multusd-${PV}-${MULTUSD_MACHINE}.tar.gz;name=${MULTUSD_MACHINE} "
S = "${UNPACKDIR}/multusd-${PV}-${MULTUSD_MACHINE}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

MULTUSD_EXECUTABLE = "${S}/multusd"
MULTUSD_INIT = "${S}/init"
MULTUSD_SAMPLE = "${S}/multusd.cfg"
MULTUSD_AUTOBOOT = "${S}/autoboot.txt"
MULTUSD_THIRD_PARTY = "${S}/THIRD-PARTY"

RPROVIDES:${PN} = "multusd"
RCONFLICTS:${PN} = "multusd"

# Static, and without what a linker or debugger reads.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
INHIBIT_SYSROOT_STRIP = "1"
INSANE_SKIP:${PN} += "already-stripped ldflags"
