# With DATABASE_URL set, that server is used and none is started, except for the benchmarks.
# With CLERK_SECRET_KEY set, the demo mirrors the real Clerk instance.

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 22

.PHONY: run
run: ## Mirror 10,000 simulated users into a private PostgreSQL, and sync their changes for 15 s
	@scripts/demo run

.PHONY: up
up: ## Do the same until Ctrl-C
	@scripts/demo up

.PHONY: psql
psql: ## Open the database of the last `make run` or `make up` in psql; ARGS=… go to psql
	@scripts/psql $(ARGS)

.PHONY: test
test: ## Run all tests against a private PostgreSQL; ARGS=… go to cargo test
	@scripts/test $(ARGS)

.PHONY: deb
deb: ## Build the Debian package in target/debian; ARGS=… go to cargo-deb
	@scripts/deb $(ARGS)

.PHONY: binary
binary: ## Build a static binary in target/dist; TARGET=x86_64-unknown-linux-musl sets the target (needs musl-tools)
	@scripts/binary $(TARGET)

.PHONY: image
image: ## Build the image with an SBOM in target/image; IMAGE=NAME PUSH=1 pushes it (needs a Docker engine with buildx)
	@scripts/image build

.PHONY: image-index
image-index: ## Join the pushed images of both architectures under one tag of IMAGE=NAME
	@scripts/image index

.PHONY: checksums
checksums: ## Write SHA256SUMS over the files of target/dist
	@scripts/checksums

.PHONY: check-release
check-release: ## Check that the files name the version of TAG=v0.1.0
	@scripts/release check

.PHONY: release
release: ## Publish the files of target/dist as GitHub's release of TAG=v0.1.0 (needs gh)
	@scripts/release publish

.PHONY: test-systemd
test-systemd: ## Test the package and its units in a booted Debian (as root; ALLOW_SKIP=1 skips it if that is impossible)
	@scripts/test-systemd

.PHONY: histories
histories: ## Run random histories with random faults; HISTORIES=1..1000 runs these, HISTORIES=17 repeats one
	@scripts/test --test history -- --nocapture

.PHONY: mutants
mutants: ## Break the program in each known way, and see that histories find it; ARGS=NAME… selects mutants
	@scripts/mutants $(ARGS)

.PHONY: soak
soak: ## Break everything around the program for a long time while 200,000 users change; SOAK=30m sets the time
	@scripts/test --release --test soak -- --nocapture

.PHONY: fuzz
fuzz: ## Fuzz the code that reads Clerk's answers; FUZZ=1m sets the time (needs nightly Rust and cargo-fuzz); ARGS=… go to libFuzzer
	@scripts/fuzz $(ARGS)

.PHONY: pictures
pictures: ## Take the picture of the status page in docs/images (needs Chromium)
	@scripts/pictures

.PHONY: test-docker
test-docker: ## Build the images and run the compose files against a simulated Clerk (needs a Docker engine)
	@scripts/test-docker

.PHONY: bench
bench: ## Measure the speed with a million users against the machine, Clerk's limit and other tools (benches/README.md)
	@scripts/bench scale

.PHONY: bench-freshness
bench-freshness: ## Measure how fresh the mirror of a million users is, and the cost (benches/README.md)
	@scripts/bench freshness

.PHONY: bench-delivery
bench-delivery: ## Measure how fast events are delivered, and what a dead endpoint costs (benches/README.md)
	@scripts/bench delivery

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Check format, lints and documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --test soak --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

.PHONY: deny
deny: ## Check dependencies: bans, licences, sources (needs cargo-deny)
	cargo deny --locked check bans licenses sources

.PHONY: clean
clean: ## Stop private PostgreSQL clusters, and remove all build output
	@scripts/clean
