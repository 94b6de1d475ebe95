# The ways into this house. Everything they need beyond cargo is named when it is missing; nothing
# is installed and sudo is never called. `.ci/run` is the one that installs.

.DEFAULT_GOAL := help
.PHONY: help run run-image image test test-qemu test-image test-clients release companion reproduce bloat cross bench soak lint artefacts test-packaging test-debian test-systemd
# A failing step ends a target; two builds in one target directory would only wait for each other.
.NOTPARALLEL:

RUST := gcc libc6-dev cargo-web rustc-web
RUST_TEST := $(RUST) g++ g++-arm-linux-gnueabi git systemd python3 deb:python3-venv mbpoll socat iproute2 mariadb-server e2fsprogs mtools dosfstools genimage fakeroot rustfmt-web rust-web-clippy
QEMU := qemu-system-arm kmod xz-utils debian-archive-keyring gcc-aarch64-linux-gnu
IMAGE := mtools dosfstools squashfs-tools cpio kmod xz-utils binutils python3 debian-archive-keyring
TEST_IMAGE := $(IMAGE) e2fsprogs qemu-system-arm openssh-client bmap-tools shfmt
# Asked for when needed: which version of clang goes with the compiler, that one has to say.
RELEASE = $(shell release/packages)
TRY_RELEASE := qemu-user-static faketime
DEBIAN := deb:debhelper deb:dpkg-dev
PEERS := python3 runit s6 daemontools supervisor

help: ## Show this.
	@grep -E '^[a-z-]+:.* ## ' Makefile | sed 's/:.* ## /\t/' | while IFS='	' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

run: ## Build, and watch multusd look after seven programs, most of them bad; Ctrl-C ends it.
	@scripts/need run $(RUST)
	@demo/run

BOARD ?= rpi3-64
CONFIG ?= board/multusd.cfg

image: ## An SD-card image: make image BOARD=rpi0|rpi2|rpi3-64|rpi-zero2|rpi4-64|rpi5|qemu-virt|all [CONFIG=my.cfg]
	@scripts/need image $(RUST) $(RELEASE) $(IMAGE)
	@# What reads it here, before a board does.
	@if [ '$(CONFIG)' != board/multusd.cfg ]; then cargo build --release; fi
	@release/build $$(board/image --executables $(BOARD))
	@board/image $(BOARD) --config $(CONFIG)

run-image: ## The image for QEMU, booted on this terminal.
	@scripts/need run-image $(RELEASE) $(IMAGE) qemu-system-arm
	@release/build aarch64
	@board/image qemu-virt
	@board/run

test: ## Every check: lint, tests, what ships, machines in QEMU, SD-card images, simulated time, mutants, fuzzing, the demo.
	@scripts/need test $(RUST_TEST) $(RELEASE) $(TRY_RELEASE) $(QEMU) $(TEST_IMAGE)
	@scripts/test

test-qemu: ## The tests with whole machines in QEMU alone: watchdog, GPIO, a Raspberry Pi; 2 minutes.
	@scripts/need test-qemu $(RUST) $(RELEASE) $(QEMU)
	release/build aarch64 armv7 armv6
	cargo test --test qemu -- --nocapture

test-image: ## The tests that boot SD-card images in QEMU alone: three Raspberry Pis, resets, power cuts.
	@scripts/need test-image $(RUST) $(RELEASE) $(TEST_IMAGE)
	release/build aarch64 armv7 armv6
	cargo test --test image -- --nocapture

# npm's client is compiled against the headers of Node, which a Node that is not Debian's brings along.
NODE_HEADERS = $(shell test -e "$$(dirname "$$(readlink -f "$$(command -v node)")")/../include/node/node.h" || echo deb:libnode-dev)

test-clients: ## Clients of sd_notify from PyPI and npm, fetched into the build folder; needs the network.
	@scripts/need test-clients $(RUST) systemd deb:python3-venv npm deb:libsystemd-dev $(NODE_HEADERS)
	cargo test --test notify_clients -- --include-ignored

release: ## What ships: static executables for aarch64, armv7, armv6 and x86_64, in target/dist.
	@scripts/need release $(RELEASE)
	@release/build

companion: ## The program that brings the record to MariaDB or MySQL, for each machine, beside multusd in target/dist.
	@scripts/need companion $(RELEASE)
	@PROGRAM=recorder-mysql release/build

reproduce: ## The same executables built as somebody else would, bit by bit compared with target/dist.
	@scripts/need reproduce $(RELEASE) git faketime
	@release/reproduce

# What release/build and PROGRAM=… make is looked at by cargo again, which takes seconds where nothing has changed.
artefacts: ## A whole release in target/artefacts: archives, Debian packages, sources, what is in them, checksums; made twice, compared.
	@scripts/need artefacts $(RELEASE) git python3 $(DEBIAN)
	@release/build
	@PROGRAM=recorder-mysql release/build
	@packaging/artefacts
	@packaging/reproduce

test-packaging: ## The packages: everything that needs no tree of others; BUILDROOT=DIR and OE=DIR name such trees, for all of their checks.
	@scripts/need test-packaging $(RUST_TEST) faketime
	@packaging/test

test-debian: ## The Debian packages: lintian, and a fresh Debian in which one is installed, upgraded, removed, purged; wants root, 2 minutes.
	@scripts/need test-debian $(RELEASE) $(DEBIAN) deb:debootstrap deb:lintian deb:systemd-container
	@release/build x86_64 aarch64 armv6
	@packaging/test-debian

test-systemd: ## The Debian package for arm64 under systemd 252 and 257 in QEMU: ten minutes alone, then killed, stopped, restarted; wants root, 50 minutes.
	@scripts/need test-systemd $(RELEASE) $(QEMU) $(DEBIAN) cpio deb:debootstrap
	@release/build aarch64
	@packaging/test-systemd

bloat: ## What each part of the aarch64 executable costs.
	@scripts/need bloat $(RELEASE) python3
	@release/build aarch64
	@release/bloat aarch64

cross: ## The executables by way of `cross`, for machines that are not Debian's.
	@release/cross

bench: ## multusd beside runit, s6, daemontools and supervisord, and the kernel's floor; hangs, heartbeats, bad clients, Modbus, lines, logs; 20 minutes.
	@scripts/need bench $(RUST) $(PEERS) strace deb:python3-venv $(RELEASE) $(QEMU)
	cargo build --release
	@bench/run
	@bench/beats
	@bench/control
	@bench/modbus
	@release/build aarch64
	@bench/gpio
	@release/build x86_64
	@bench/memory
	@bench/memory --locked
	@bench/log

soak: ## The checks of `test` with counts for a night.
	@scripts/need soak $(RUST_TEST) $(RELEASE) $(TRY_RELEASE) $(QEMU) $(TEST_IMAGE)
	@scripts/test soak

lint: ## Formatting, clippy and shellcheck, with nothing forgiven.
	@scripts/need lint $(RUST_TEST)
	@scripts/lint
