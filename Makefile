# make test    everything that must hold: format, lints, purity, docs, all tests
# make build   the binary: target/release/commonhold
# make demo    the tour: a local network, a backup, a loss, a restore
# make bench   the speed of every stage and of the whole (PEERS=1: Tahoe-LAFS beside it)
# make durability   docs/durability.md anew, from simulated runs
# make compare      what the simulator predicts of a network of processes, beside what it did; fails if 20% apart
#
# Each does all of its own set-up on a fresh Debian with a Rust toolchain, if it runs as root; else it names the packages
# that are missing. One profile and one target folder serve all checks, so that nothing is built twice.

.PHONY: test build demo bench durability compare setup setup-build format tidy purity dependencies lint doc unit
.NOTPARALLEL:

test: setup format tidy purity dependencies lint doc unit

build: setup-build
	cargo build --release --locked -p commonhold

demo: build
	target/release/commonhold demo

bench:
	scripts/setup $(if $(filter 1,$(PEERS)),peers,build)
	PEERS=$(PEERS) scripts/bench

durability: setup-build
	cargo run --quiet --locked -p commonhold-simulations --example durability docs

compare: setup
	cargo build --quiet --locked --workspace --all-targets
	(cargo nextest run --locked -p commonhold --test net --success-output final --no-fail-fast \
	    -E 'test(/net_repair::/) | test(/every_cheat_is_found/)'; \
	for run in 1 2 3 4 5; do \
	    cargo nextest run --locked -p commonhold --test net --success-output final -E 'test(/predicted::/)'; \
	done) 2>&1 | cargo run --quiet --locked -p commonhold-simulations --example compare

setup:
	scripts/setup test

setup-build:
	scripts/setup build

format:
	cargo fmt --all --check

tidy:
	scripts/check-tidy

purity:
	scripts/check-purity

dependencies:
	scripts/check-dependencies

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

unit:
	cargo nextest run --workspace --locked
	cargo test --workspace --locked --doc
