SUMMARY = "Small image whose programs multusd looks after"
DESCRIPTION = "What is needed to boot, multusd, and a root file system that is only read."
LICENSE = "MIT"

inherit core-image

IMAGE_INSTALL = "packagegroup-core-boot packagegroup-multusd ${CORE_IMAGE_EXTRA_INSTALL}"
IMAGE_FEATURES += "read-only-rootfs"
IMAGE_LINGUAS = ""

# Where the writable partition is mounted.
multusd_data_directory() {
    install -d ${IMAGE_ROOTFS}/data
}
ROOTFS_POSTPROCESS_COMMAND += "multusd_data_directory"

# On a Raspberry Pi: boot, root, data; with MULTUSD_AB = "1" two systems that are replaced in turn.
MULTUSD_AB ?= "0"
MULTUSD_WKS = "${@'multusd-sdcard-ab.wks' if d.getVar('MULTUSD_AB') == '1' else 'multusd-sdcard.wks'}"
WKS_FILE:rpi = "${MULTUSD_WKS}"
WKS_FILE_DEPENDS:append:rpi = " multusd-boot"
IMAGE_FSTYPES:append:rpi = " wic.bz2 wic.bmap"

# multusd.cfg is on the first partition, which is mounted as /boot, whichever system runs.
IMAGE_BOOT_FILES:append:rpi = " ${@'' if d.getVar('MULTUSD_AB') == '1' else 'multusd/multusd.cfg;multusd.cfg'}"
# With two systems: what the firmware reads first (before Raspberry Pi 4 that is bootcode.bin and config.txt, too), and each its own command line.
IMAGE_BOOT_FILES_label-select ?= "multusd/multusd.cfg;multusd.cfg multusd/autoboot.txt;autoboot.txt ${BOOTFILES_DIR_NAME}/bootcode.bin;bootcode.bin ${BOOTFILES_DIR_NAME}/config.txt;config.txt"
IMAGE_BOOT_FILES_label-boot-a ?= "${IMAGE_BOOT_FILES} multusd/cmdline-a.txt;cmdline.txt"
IMAGE_BOOT_FILES_label-boot-b ?= "${IMAGE_BOOT_FILES} multusd/cmdline-b.txt;cmdline.txt"
WICVARS:append = " IMAGE_BOOT_FILES_label-select IMAGE_BOOT_FILES_label-boot-a IMAGE_BOOT_FILES_label-boot-b"
