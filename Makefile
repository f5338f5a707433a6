# Every verb a person or CI says. Plain `make` prints them.
.DEFAULT_GOAL := help
.PHONY: help run build test check fmt lint doc deps sqlx sqlx-check env-example audit scripts-check \
	fuzz-time docker-build docker-up docker-dev docker-down docker-logs scale-worker clean
SHELL := /bin/sh

# Arguments for the verb: make run ARGS='--port 8090', make test ARGS='-p orchestrator-engine'
ARGS ?=
TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## What can be said here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: deps ## Install what is missing, build, and run the whole system here (Ctrl-C ends it)
	cargo build --release --locked -p orchestrator-cli
	@ops/scripts/tools-venv.sh config || echo "without Python packages; all works but the tool time.*" >&2
	exec $(TARGET)/release/orchestrator dev $(ARGS)

build: ## Build everything, unoptimised
	cargo build --locked --bins

test: deps ## All tests, on throwaway Postgres and Redis servers (ARGS go to cargo test)
	ops/scripts/tools-venv.sh
	cargo build --locked --bins
	@$(TARGET)/debug/orchestrator servers --throwaway -- cargo test --locked --workspace $(ARGS)

check: fmt-check lint sqlx-check doc scripts-check ## Everything CI refuses, except tests

fmt: ## Format the code
	cargo fmt

.PHONY: fmt-check
fmt-check:
	cargo fmt --check

lint: ## Clippy, no warnings
	cargo clippy --locked --workspace --all-targets -- -D warnings

fuzz-time: ## Compare random schedules with dateutil, croniter and zoneinfo: make fuzz-time N=20000
	python3 -m venv $(TARGET)/fuzz-venv
	$(TARGET)/fuzz-venv/bin/pip install --quiet --disable-pip-version-check \
		python-dateutil==2.9.0.post0 croniter==6.0.0 tzdata==2025.2
	cargo build --locked -p orchestrator-engine --example schedule_answers
	PYTHONDONTWRITEBYTECODE=1 $(TARGET)/fuzz-venv/bin/python crates/engine/tests/data/fuzz_time.py \
		$(TARGET)/debug/examples/schedule_answers $(or $(N),5000) $(SEED)

doc: ## The documentation of the code, no warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

sqlx: ## Write .sqlx/ anew, after a change of a query or a migration
	ops/scripts/sqlx.sh write

sqlx-check: ## Refuse an outdated .sqlx/
	ops/scripts/sqlx.sh check

env-example: ## Write .env.example anew, after a change of the table of settings
	UPDATE_ENV_EXAMPLE=1 cargo test --locked -p orchestrator-engine --lib the_example_file

scripts-check: ## Scripts, Dockerfile, compose files, alert rules, as far as their checkers are here
	ops/scripts/check-files.sh

audit: ## Licences and advisories of what we depend on
	cargo deny check

deps: ## Install PostgreSQL, Redis and python3-venv where they are missing
	@ops/scripts/install-deps.sh

docker-build: ## Build the images
	docker compose build

docker-up: ## Start everything in containers, and wait until it is healthy
	docker compose up --build --detach --wait

docker-dev: ## The same with the source mounted and debug logs
	docker compose -f docker-compose.yml -f docker-compose.dev.yml up --build

docker-logs: ## Follow the containers' logs
	docker compose logs --follow

scale-worker: ## Run N workers in containers: make scale-worker N=3
	@test -n "$(N)" || { echo "how many? make scale-worker N=3" >&2; exit 2; }
	docker compose up --detach --no-build --no-recreate --scale worker=$(N) worker

docker-down: ## Stop the containers; data are kept
	docker compose down

clean: ## Remove what was built (not .orchestrator/, which holds data)
	cargo clean

.PHONY: bench-scheduler
bench-scheduler: deps ## Measure schedules: lateness, a burst, a million of them (about 5 min; ARGS='--help')
	cargo build --release --locked -p orchestrator-cli -p orchestrator-scheduler -p orchestrator-bench
	@$(TARGET)/release/orchestrator servers --data-dir target/bench/servers -- \
		$(TARGET)/release/orchestrator-bench scheduler $(ARGS)

.PHONY: chaos
chaos: deps ## Break everything under load, 10,000 runs a fault (about 20 min; ARGS='--fault redis-lost'; root and faketime for all)
	cargo build --release --locked -p orchestrator-api -p orchestrator-scheduler -p orchestrator-worker -p orchestrator-chaos
	@$(TARGET)/release/orchestrator-chaos --output $(TARGET)/chaos $(or $(ARGS),--table docs/reliability.md)
