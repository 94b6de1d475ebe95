################################################################################
#
# multusd
#
################################################################################

MULTUSD_VERSION = 0.1.0
MULTUSD_LICENSE = MIT or Apache-2.0

ifeq ($(BR2_PACKAGE_MULTUSD_PREBUILT),y)

# What a release's archive has on top.
MULTUSD_INIT_FILES = $(MULTUSD_DIR)/init
MULTUSD_SAMPLE = $(MULTUSD_DIR)/multusd.cfg
MULTUSD_EXECUTABLE = $(MULTUSD_DIR)/multusd
MULTUSD_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE THIRD-PARTY

MULTUSD_PREBUILT_DIR = $(call qstrip,$(BR2_PACKAGE_MULTUSD_PREBUILT_DIR))
ifeq ($(MULTUSD_PREBUILT_DIR),)
MULTUSD_SITE = https://github.com/multusd/multusd/releases/download/v$(MULTUSD_VERSION)
MULTUSD_SOURCE = multusd-$(MULTUSD_VERSION)-$(call qstrip,$(BR2_PACKAGE_MULTUSD_MACHINE)).tar.gz
else
MULTUSD_SITE = $(MULTUSD_PREBUILT_DIR)
MULTUSD_SITE_METHOD = local
endif

else

MULTUSD_SITE = $(call github,multusd,multusd,v$(MULTUSD_VERSION))
MULTUSD_INIT_FILES = $(MULTUSD_DIR)/packaging/init
MULTUSD_SAMPLE = $(MULTUSD_DIR)/board/multusd.cfg
MULTUSD_EXECUTABLE = $(MULTUSD_DIR)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)/multusd
MULTUSD_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE packaging/THIRD-PARTY

# Nothing unwinds, so nobody reads the tables; some packets of dido a second
# are no work for vector units.
MULTUSD_RUSTFLAGS = \
	-Cforce-unwind-tables=no \
	--cfg=chacha20_backend="soft" --cfg=poly1305_backend="soft"

# What .cargo/config.toml says for 32-bit ARM is replaced with that file when
# the crates are vendored: there the time has 64 bits by this. The other flag
# is Buildroot's own, which these replace.
ifeq ($(BR2_arm)$(BR2_TOOLCHAIN_USES_MUSL),yy)
MULTUSD_RUSTFLAGS += \
	-Clink-arg=-Wl,--allow-multiple-definition \
	--cfg libc_unstable_musl_v1_2
endif

# Buildroot's own choices for all Rust programs win over Cargo.toml, and are
# for speed. These come later and win over them: built for size.
MULTUSD_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL=z \
	CARGO_PROFILE_RELEASE_LTO=fat \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS='$(strip $(MULTUSD_RUSTFLAGS))'

# With MULTUSD_OVERRIDE_SRCDIR nothing is downloaded, and so nothing vendored.
define MULTUSD_VENDOR
	cd $(@D) && { test -d VENDOR || { \
		mkdir -p .cargo && \
		$(HOST_MAKE_ENV) $(PKG_COMMON_CARGO_ENV) \
			cargo vendor --locked VENDOR > .cargo/config.toml.new && \
		mv .cargo/config.toml.new .cargo/config.toml; \
	}; }
endef
MULTUSD_PRE_CONFIGURE_HOOKS += MULTUSD_VENDOR

endif

# multusctl is the same program by another name.
define MULTUSD_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(MULTUSD_EXECUTABLE) \
		$(TARGET_DIR)/usr/sbin/multusd
	mkdir -p $(TARGET_DIR)/usr/bin $(TARGET_DIR)/etc/multusd
	ln -sf ../sbin/multusd $(TARGET_DIR)/usr/bin/multusctl
endef

ifeq ($(BR2_PACKAGE_MULTUSD_SAMPLE_CONFIG),y)
define MULTUSD_INSTALL_SAMPLE
	$(INSTALL) -D -m 0600 $(MULTUSD_SAMPLE) $(TARGET_DIR)/etc/multusd.cfg
endef
MULTUSD_POST_INSTALL_TARGET_HOOKS += MULTUSD_INSTALL_SAMPLE
endif

# Others write inittab too, so its line is put there when all are done. A line
# of an earlier build goes.
ifeq ($(BR2_PACKAGE_MULTUSD_INIT_INITTAB),y)
define MULTUSD_INSTALL_INITTAB
	$(SED) '\@^::respawn:/usr/sbin/multusd@d' -e '$$a\' $(TARGET_DIR)/etc/inittab
	cat $(MULTUSD_INIT_FILES)/inittab.line >> $(TARGET_DIR)/etc/inittab
endef
MULTUSD_TARGET_FINALIZE_HOOKS += MULTUSD_INSTALL_INITTAB
endif

ifeq ($(BR2_PACKAGE_MULTUSD_INIT_SCRIPT),y)
define MULTUSD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(MULTUSD_INIT_FILES)/S15multusd \
		$(TARGET_DIR)/etc/init.d/S15multusd
endef
endif

ifeq ($(BR2_PACKAGE_MULTUSD_INIT_SYSTEMD),y)
define MULTUSD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(MULTUSD_INIT_FILES)/multusd.service \
		$(TARGET_DIR)/usr/lib/systemd/system/multusd.service
	$(INSTALL) -D -m 0644 $(MULTUSD_INIT_FILES)/multusd.tmpfiles \
		$(TARGET_DIR)/usr/lib/tmpfiles.d/multusd.conf
endef
endif

# Members may give orders, where control_group = operators.
define MULTUSD_USERS
	- -1 operators -1 - - - - -
endef

# Keys of dido are in the folder, and passwords may be in the file.
define MULTUSD_PERMISSIONS
	/etc/multusd d 700 0 0 - - - - -
	$(if $(BR2_PACKAGE_MULTUSD_SAMPLE_CONFIG),/etc/multusd.cfg f 600 0 0 - - - - -)
endef

# What `multusd self-test` calls required, and what limits programs.
define MULTUSD_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_EPOLL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SIGNALFD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_TIMERFD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_EVENTFD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SHMEM)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UNIX)
	$(call KCONFIG_ENABLE_OPT,CONFIG_INOTIFY_USER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUPS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MEMCG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CGROUP_PIDS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_WATCHDOG)
	$(call KCONFIG_ENABLE_OPT,CONFIG_GPIOLIB)
	$(call KCONFIG_ENABLE_OPT,CONFIG_GPIO_CDEV)
endef

ifeq ($(BR2_PACKAGE_MULTUSD_PREBUILT),y)
$(eval $(generic-package))
else
$(eval $(cargo-package))
endif
