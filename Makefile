# Orderflow: every target sets up what it needs. Set PYTHON=python3.13 to choose the interpreter, ARGS="…" to pass
# arguments on, PORT=8001 to move `make run`.

python = .venv/bin/python
compose = sh deploy/compose.sh
# Each process has servers of its own; most tests wait, so there may be more of them than processors.
in_parallel = --numprocesses 4 --dist worksteal

.PHONY: help demo run up down logs test test-integration faults soak bench check fmt lock lambda lambda-image orderflow migrate \
	environment dev-environment

help: ## show this list
	@echo 'Orderflow: accepted orders are never lost, nobody is charged twice.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

demo: environment ## watch realistic orders go through, in one process with nothing else installed
	@$(python) -m sandbox.demo $(ARGS)

run: environment ## serve the same system on 127.0.0.1:8000 (PORT=8001 for another port), Ctrl-C to stop
	@$(python) -m ops.main run $(ARGS)

up: ## build and start everything in containers, and wait until it is ready
	@$(compose) up --build --detach --wait $(ARGS)
	@echo
	@echo "Orders:   $$($(compose) port gateway 80 | sed 's|^|http://|')/orders"
	@echo "Mails:    $$($(compose) port maildev 1080 | sed 's|^|http://|')"
	@echo "RabbitMQ: $$($(compose) port rabbitmq 15672 | sed 's|^|http://|') (user and password: orderflow, unless set)"
	@echo
	@echo 'Place the order of README.md with curl, follow with `make logs`, stop with `make down`.'

down: ## stop the containers, those of a profile too (the data stays in its volumes)
	@$(compose) --profile '*' down --remove-orphans $(ARGS)

logs: ## follow what the containers log
	@$(compose) logs --follow --tail 100 $(ARGS)

test: dev-environment ## every test but the end-to-end and fault runs; says what it left out where Docker does not answer
	@$(python) -m pytest --ignore tests/e2e --ignore tests/faults $(in_parallel) $(ARGS)

test-integration: dev-environment ## the tests on PostgreSQL and RabbitMQ in containers; fails without Docker
	@REQUIRE_DOCKER=1 $(python) -m pytest tests/integration tests/conformance $(in_parallel) $(ARGS)

faults: dev-environment ## every fault once, under load, each seen to strike; then everything is checked (Docker, 10 minutes)
	@$(python) -m pytest tests/faults $(ARGS)

soak: dev-environment ## random faults under load: ORDERS=100000 FAULTS=1000 SEED=7 PROVIDER=simulated; ends in a report
	@ORDERS='$(ORDERS)' FAULTS='$(FAULTS)' SEED='$(SEED)' PROVIDER='$(PROVIDER)' $(python) -m tests.faults.soak

bench: dev-environment ## what an order costs, beside the usual tools (30 minutes); ARGS="--only orderflow,floor" for a part (4)
	@$(python) -m bench $(ARGS)

check: dev-environment ## lint, formatting, types, import rules, lock files, the AWS template
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy
	@$(python) -m mypy deploy/venv.py deploy/aws/package.py
	@$(python) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	@sh deploy/lock.sh --check
	@sh deploy/aws/lint.sh

fmt: dev-environment ## format the code and mend what the linter can mend
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

lock: dev-environment ## write the lock files from pyproject.toml (ARGS=--upgrade takes new releases)
	@sh deploy/lock.sh $(ARGS)

orderflow: environment ## any command of the system that `make run` keeps: make orderflow ARGS="dead list"
	@$(python) -m ops.main $(ARGS)

lambda: dev-environment ## make dist/lambda.zip, the package of the AWS functions (ARCH=x86_64: for that platform)
	@sh deploy/aws/package.sh $(ARCH)

lambda-image: ## build the same as a container image for Lambda, orderflow-lambda
	@$(compose) --profile lambda build lambda

migrate: environment ## make roles, schemas, tables and the broker's topology at DATABASE_URL and BROKER_URL
	@$(python) -m ops.main migrate $(ARGS)

environment:
	@sh deploy/venv.sh requirements.lock

dev-environment:
	@sh deploy/venv.sh requirements-dev.lock
