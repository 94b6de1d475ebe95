# The ways into this house. Everything they need beyond cargo is named when it is missing; nothing
# is installed and sudo is never called. `.ci/run` is the one that installs.

.DEFAULT_GOAL := help
.PHONY: help run test bench soak lint
# A failing step ends a target; two builds in one target directory would only wait for each other.
.NOTPARALLEL:

RUST := gcc libc6-dev cargo-web rustc-web
RUST_TEST := $(RUST) g++ git rustfmt-web rust-web-clippy
PEERS := python3 runit s6 daemontools supervisor

help: ## Show this.
	@grep -E '^[a-z]+:.* ## ' Makefile | sed 's/:.* ## /\t/' | while IFS='	' read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

run: ## Build, and watch multusd look after seven programs, most of them bad; Ctrl-C ends it.
	@scripts/need run $(RUST)
	@demo/run

test: ## Every check: lint, tests, simulated time, mutants, fuzzing, the demo.
	@scripts/need test $(RUST_TEST)
	@scripts/test

bench: ## multusd beside runit, s6, daemontools and supervisord, and the kernel's floor; 8 minutes.
	@scripts/need bench $(RUST) $(PEERS)
	cargo build --release
	@bench/run

soak: ## The checks of `test` with counts for a night.
	@scripts/need soak $(RUST_TEST)
	@scripts/test soak

lint: ## Formatting, clippy and shellcheck, with nothing forgiven.
	@scripts/need lint $(RUST_TEST)
	@scripts/lint
