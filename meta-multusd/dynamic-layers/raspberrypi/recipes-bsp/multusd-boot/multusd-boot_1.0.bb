SUMMARY = "What multusd puts on a Raspberry Pi's boot partition"
DESCRIPTION = "The sample multusd.cfg, to be edited on any computer, and what two systems on one card need: autoboot.txt and a \
kernel command line for each."
HOMEPAGE = "https://github.com/multusd/multusd"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

# Nothing is fetched. Whichever recipe it is that provides them: both files come out of its sysroot.
DEPENDS = "multusd"
SRC_URI = ""

inherit deploy nopackages

COMPATIBLE_MACHINE = "^rpi$"
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"
do_install[noexec] = "1"

# Partitions as in multusd-sdcard-ab.wks. The firmware reads autoboot.txt from the first one; `reboot '0 tryboot'` tries the
# other system once.
do_deploy() {
    install -d ${DEPLOYDIR}/multusd
    install -m 0644 ${STAGING_DATADIR}/multusd/multusd.cfg ${DEPLOYDIR}/multusd/multusd.cfg
    install -m 0644 ${STAGING_DATADIR}/multusd/autoboot.txt ${DEPLOYDIR}/multusd/autoboot.txt
    for system in a:5 b:6; do
        sed "s,root=[^ ]*,root=/dev/mmcblk0p${system#*:}," ${DEPLOY_DIR_IMAGE}/${BOOTFILES_DIR_NAME}/cmdline.txt \
            > ${DEPLOYDIR}/multusd/cmdline-${system%:*}.txt
    done
}
do_deploy[depends] += "rpi-cmdline:do_deploy"
addtask deploy before do_build after do_install
