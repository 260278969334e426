# DATABASE_URL set: that server is used, and none is started, but for the benchmark. CLERK_SECRET_KEY set: the demo mirrors the real Clerk.

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 22

.PHONY: run
run: ## Mirror 10,000 simulated users into a private PostgreSQL, and follow their changes for 15 s
	@scripts/demo run

.PHONY: up
up: ## The same until Ctrl-C
	@scripts/demo up

.PHONY: psql
psql: ## Look into the database of the last `make run` or `make up`
	@scripts/psql $(ARGS)

.PHONY: test
test: ## Run all tests against a private PostgreSQL; ARGS=… are cargo test's
	@scripts/test $(ARGS)

.PHONY: deb
deb: ## Build the Debian package in target/debian; ARGS=… are cargo-deb's
	@scripts/deb $(ARGS)

.PHONY: test-systemd
test-systemd: ## Prove the package and its units in a booted Debian (as root; ALLOW_SKIP=1 where that cannot be had)
	@scripts/test-systemd

.PHONY: histories
histories: ## Play random histories while everything breaks; HISTORIES=1..1000 chooses, HISTORIES=17 plays one again
	@scripts/test --test history -- --nocapture

.PHONY: soak
soak: ## Break everything around the program for a long time while 200,000 users change; SOAK=30m is how long
	@scripts/test --release --test soak -- --nocapture

.PHONY: fuzz
fuzz: ## Throw bytes at what reads Clerk's answers, for FUZZ=1m (needs a nightly toolchain and cargo-fuzz); ARGS=… are libFuzzer's
	@scripts/fuzz $(ARGS)

.PHONY: test-docker
test-docker: ## Build the images and run the compose files against a simulated Clerk (needs a Docker engine)
	@scripts/test-docker

.PHONY: bench
bench: ## Measure the mirror of a million users against the machine, Clerk's limit and other tools; benches/README.md says how
	@scripts/bench scale

.PHONY: bench-freshness
bench-freshness: ## Measure how fresh the mirror of a million users is and what that costs; benches/README.md says how
	@scripts/bench freshness

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
clean: ## Stop private PostgreSQL clusters, and remove all that was built
	@scripts/clean
