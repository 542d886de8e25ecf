.DEFAULT_GOAL := help
.PHONY: help demo test chaos bench bench-smoke bench-growth bench-scale bench-isolation compose-test build lint fmt doc direction clean-broker

help: ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

demo: ## Install what is missing, build, and show Postrider at work
	@dev/demo

test: ## Install what is missing, and run everything that CI runs
	@dev/test

chaos: ## Hurt it in every way, root's among them, and write docs/chaos.md; takes more than an hour
	@dev/chaos

bench: ## Measure: conditions at their worst, routing among 100,000 webhooks, ten million reminders and deliveries, every target but growth (docs/performance.md)
	cargo bench --package postrider-core --locked
	cargo test --release --workspace --lib --locked -- ten_million --ignored --nocapture --test-threads=1
	@dev/bench --quick

bench-smoke: ## Measure for a minute, and fail where it has become grossly slower
	@dev/bench-smoke

bench-growth: ## Measure what 100,000 webhooks, and a million deliveries that wait, cost the others; a quarter of an hour
	@dev/bench-growth

bench-scale: ## Measure how far more workers, routers and shards carry; ten minutes
	@dev/bench-scale

bench-isolation: ## Measure what bad neighbours do to others, and write docs/isolation.svg; takes half an hour
	@dev/bench-isolation

compose-test: ## Try docker-compose.yml in a fresh clone; needs Docker
	@dev/compose-test

build: ## Build everything
	cargo build --workspace --all-targets --locked

lint: ## Run clippy, as strict as CI
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## Format the code
	cargo fmt --all

doc: ## Build the documentation of all crates
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

direction: ## Check what each crate may link
	@dev/check-direction

clean-broker: ## Remove the private brokers of the demo and the tests, with their data
	@dev/broker remove
	@dev/broker remove "$${CARGO_TARGET_DIR:-target}/test-broker"
	@rm -rf "$${CARGO_TARGET_DIR:-target}/demo"
