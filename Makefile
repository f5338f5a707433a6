# Every verb a person or CI says. Plain `make` prints them.
.DEFAULT_GOAL := help
.PHONY: help run build test check fmt lint doc deps sqlx sqlx-check env-example audit scripts-check \
	monitoring-check monitoring-try dashboards \
	fuzz-time docker-build docker-up docker-dev docker-down docker-logs scale-worker clean \
	dev prod start stop restart logs status watch health scale-api shell-db shell-redis db-backup db-restore \
	volume-backup volume-restore deploy rollback smoke validate security-scan drill clean-all
SHELL := /bin/sh

# CHECK_ALL=1: what cannot be checked or tested for want of a program is a failure (check, test, and the like)
export CHECK_ALL ?=
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

test: ## All tests, on throwaway Postgres and Redis servers (ARGS go to cargo test)
	@ops/scripts/install-deps.sh tests
	ops/scripts/tools-venv.sh
	cargo build --locked --bins
	@ops/scripts/left-out.sh tests
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

env-example: ## Write .env.example and the table in docs/running.md anew, after a change of the table of settings
	UPDATE_ENV_EXAMPLE=1 cargo test --locked -p orchestrator-engine --lib the_example_file

scripts-check: ## Scripts, Dockerfile, compose files, alert rules, as far as their checkers are here
	ops/scripts/check-files.sh

monitoring-check: ## Alert rules and their tests, routes, dashboards, runbooks, as far as the tools are here
	ops/scripts/check-monitoring.sh

monitoring-try: ## Run everything under load with Prometheus and ask every query of every dashboard (3 min; after make build)
	ops/scripts/try-monitoring.sh $(ARGS)

dashboards: ## Write Grafana's dashboards anew, after a change of ops/monitoring/grafana/dashboards.py
	python3 ops/monitoring/grafana/dashboards.py

audit: ## Licences and advisories of what we depend on
	cargo deny check

deps: ## Install PostgreSQL, Redis and python3-venv where they are missing
	@ops/scripts/install-deps.sh

docker-build: ## Build the images
	docker compose build

docker-up: ## Start everything in containers, and wait until it is healthy
	docker compose up --build --detach --wait
	@mkdir -p .deploy && echo plain >.deploy/mode

docker-dev: ## The same with the source mounted and debug logs, in the foreground
	docker compose -f docker-compose.yml -f docker-compose.dev.yml up

docker-logs: ## Follow the containers' logs
	docker compose logs --follow

docker-down: ## Stop the containers; data are kept
	docker compose down

# What follows is about the containers that run here, whichever of `docker-up`, `dev` and `prod` started
# them: lib.sh knows the compose files. docs/operations.md has a sentence on each.
OPS := ops/scripts/ops.sh
# One service in place of all: make logs SERVICE=worker
SERVICE ?=
SURE = $(if $(filter yes,$(YES)),--yes)

dev: ## Containers with the source mounted, built again at every change (ARGS='--clean --logs')
	ops/scripts/start.sh dev $(ARGS)

prod: ## Containers behind TLS, several of each, monitored (ARGS='--build --clean --logs')
	ops/scripts/start.sh prod $(ARGS)

start: ## Start the containers that were stopped
	@$(OPS) start $(SERVICE)

stop: ## Stop the containers, calmly; data are kept
	@$(OPS) stop $(SERVICE)

restart: ## Stop and start (SERVICE=worker: that one)
	@$(OPS) restart $(SERVICE)

logs: ## Follow the logs (SERVICE=worker: that one's)
	@$(OPS) logs $(SERVICE)

status: ## Which containers there are, and what they use
	@$(OPS) status

watch: ## The same, again every 2 s (Ctrl-C ends it)
	@$(OPS) watch

health: ## Is everything well? Exit code 1 when not (ARGS=--verbose says what is)
	@ops/scripts/healthcheck.sh $(ARGS)

scale-worker: ## Run N workers in containers: make scale-worker N=3
	@test -n "$(N)" || { echo "how many? make scale-worker N=3" >&2; exit 2; }
	@$(OPS) scale worker $(N)

scale-api: ## Run N api containers behind nginx (prod): make scale-api N=3
	@test -n "$(N)" || { echo "how many? make scale-api N=3" >&2; exit 2; }
	@$(OPS) scale api $(N)

shell-db: ## psql in the database's container
	@$(OPS) psql

shell-redis: ## redis-cli in Redis' container
	@$(OPS) redis-cli

db-backup: ## A proven backup of the database (KIND=base|wal|redis|config|full: docs/backup.md)
	ops/scripts/backup.sh $(or $(KIND),postgres) $(ARGS)

db-restore: ## Put one back: make db-restore FILE=backups/postgres/….dump (asks; YES=yes does not)
	ops/scripts/restore.sh $(or $(KIND),postgres) $(FILE) $(SURE) $(ARGS)

volume-backup: ## All volumes as they are, into backups/volumes (stops the containers meanwhile)
	ops/scripts/volumes.sh backup $(SURE)

volume-restore: ## Put them back: make volume-restore FILE=backups/volumes/… (asks)
	ops/scripts/volumes.sh restore $(FILE) $(SURE)

drill: ## Practise the loss of the data on servers made for it, and time it
	ops/scripts/drill.sh $(ARGS)

deploy: ## Replace what runs (prod) by VERSION, one by one; back by itself when that fails
	ops/scripts/deploy.sh $(VERSION) $(ARGS)

rollback: ## Back to the version before
	ops/scripts/deploy.sh --rollback

smoke: ## Try the running system from outside, as a caller
	ops/scripts/smoke.sh $(ARGS)

validate: scripts-check ## Files of operations by their checkers (= scripts-check), and what is missing here
	@ops/scripts/ops.sh prerequisites

security-scan: ## Advisories of what we depend on, secrets in the repository, images where trivy is here
	ops/scripts/security-scan.sh

clean: ## Remove what was built (not .orchestrator/, which holds data)
	cargo clean

clean-all: clean ## Remove containers, images and volumes too, WITH ALL DATA of the containers (asks)
	@$(OPS) remove-everything $(SURE)

.PHONY: release
release: ## Archive, Debian package and SHA256SUMS, in target/dist (docs/installing.md)
	ops/scripts/release.sh $(ARGS)

.PHONY: bench-scheduler
bench-scheduler: deps ## Measure schedules: lateness, a burst, a million of them (about 5 min; ARGS='--help')
	cargo build --release --locked -p orchestrator-cli -p orchestrator-scheduler -p orchestrator-bench
	@$(TARGET)/release/orchestrator servers --data-dir target/bench/servers -- \
		$(TARGET)/release/orchestrator-bench scheduler $(ARGS)

# Equal for the ceiling and for us: memory enough that reads do not decide, no checkpoint while
# something is measured, fsync and synchronous_commit on as always.
BENCH_SERVERS = $(TARGET)/release/orchestrator servers --data-dir target/bench/servers \
	--postgres-setting shared_buffers=1GB --postgres-setting max_wal_size=8GB \
	--postgres-setting max_connections=200 --postgres-setting track_commit_timestamp=on --

.PHONY: bench-build bench-queue bench-peers
bench-build: deps
	cargo build --release --locked -p orchestrator-cli -p orchestrator-api -p orchestrator-worker \
		-p orchestrator-scheduler -p orchestrator-bench

bench-queue: bench-build ## Measure the queue beside bare Postgres (about 1 h; ARGS='--quick' or '--help')
	@$(BENCH_SERVERS) $(TARGET)/release/orchestrator-bench queue $(ARGS)

bench-peers: bench-build ## Measure pg-boss and graphile-worker beside us (about 10 min, needs npm)
	@$(BENCH_SERVERS) $(TARGET)/release/orchestrator-bench peers $(ARGS)

.PHONY: chaos
chaos: deps ## Break everything under load, 10,000 runs a fault (about half an hour; ARGS='--fault redis-lost'; root and faketime for all)
	cargo build --release --locked -p orchestrator-api -p orchestrator-scheduler -p orchestrator-worker -p orchestrator-chaos
	@$(TARGET)/release/orchestrator-chaos --output $(TARGET)/chaos $(or $(ARGS),--table docs/reliability.md)
