# The ways into this house. Everything they need beyond cargo is named when it is missing; nothing
# is installed and sudo is never called. `.ci/run` is the one that installs.

.DEFAULT_GOAL := help
.PHONY: help run test test-qemu bench soak lint
# A failing step ends a target; two builds in one target directory would only wait for each other.
.NOTPARALLEL:

RUST := gcc libc6-dev cargo-web rustc-web
RUST_TEST := $(RUST) g++ git rustfmt-web rust-web-clippy
QEMU := qemu-system-arm kmod xz-utils debian-archive-keyring gcc-aarch64-linux-gnu
PEERS := python3 runit s6 daemontools supervisor

help: ## Show this.
	@grep -E '^[a-z-]+:.* ## ' Makefile | sed 's/:.* ## /\t/' | while IFS='	' read -r name text; do printf '  make %-9s %s\n' "$$name" "$$text"; done

run: ## Build, and watch multusd look after seven programs, most of them bad; Ctrl-C ends it.
	@scripts/need run $(RUST)
	@demo/run

test: ## Every check: lint, tests, machines in QEMU, simulated time, mutants, fuzzing, the demo.
	@scripts/need test $(RUST_TEST) $(QEMU)
	@scripts/test

test-qemu: ## The tests with whole machines in QEMU alone: watchdog, GPIO, a Raspberry Pi; 2 minutes.
	@scripts/need test-qemu $(RUST) $(QEMU)
	cargo test --test qemu -- --nocapture

bench: ## multusd beside runit, s6, daemontools and supervisord, and the kernel's floor; 8 minutes.
	@scripts/need bench $(RUST) $(PEERS)
	cargo build --release
	@bench/run

soak: ## The checks of `test` with counts for a night.
	@scripts/need soak $(RUST_TEST) $(QEMU)
	@scripts/test soak

lint: ## Formatting, clippy and shellcheck, with nothing forgiven.
	@scripts/need lint $(RUST_TEST)
	@scripts/lint
