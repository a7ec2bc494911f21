# Every target that `make help` lists sets up what it needs. PYTHON=python3.13 chooses the interpreter, ARGS="…" passes arguments on.

python = .venv/bin/python
compose = sh deploy/compose.sh
# The whole suite runs in several processes: each starts servers of its own, and most tests wait for them. One file
# is sooner done in one process.
in_parallel = $(if $(findstring .py,$(ARGS)),,--numprocesses 4 --dist worksteal)

.PHONY: help demo run orderflow up down logs test test-integration faults soak bench check fmt lock \
	lint types imports locks template migrate lambda lambda-image environment dev-environment

help: # lines that begin with "##@" are headings, and a target's "##" says what it does
	@echo 'Orderflow: make TARGET [ARGS="…"] [PYTHON=python3.13]'
	@awk -F ':.*## ' '/^##@/ { print substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-17s%s\n", $$1, $$2 }' Makefile

##@ In one process, with nothing else installed
demo: environment ## watch realistic orders go through
	@$(python) -m sandbox.demo $(ARGS)

run: environment ## serve on 127.0.0.1:8000 (or PORT=8001) until Ctrl-C
	@$(python) -m ops.main run $(ARGS)

orderflow: environment ## a command on the system of `make run`: ARGS="dead list"
	@$(python) -m ops.main $(ARGS)

##@ In containers
up: ## build and start everything, and wait until it is ready
	@$(compose) up --build --detach --wait $(ARGS)
	@echo
	@echo "Orders:   $$($(compose) port gateway 80 | sed 's|^|http://|')/orders"
	@echo "Mails:    $$($(compose) port maildev 1080 | sed 's|^|http://|')"
	@echo "RabbitMQ: $$($(compose) port rabbitmq 15672 | sed 's|^|http://|') (user and password: orderflow, unless set)"
	@echo
	@echo 'Place the order of README.md with curl, follow with `make logs`, stop with `make down`.'

down: ## stop everything; the data stays in its volumes
	@$(compose) --profile '*' down --remove-orphans $(ARGS)

logs: ## follow the logs
	@$(compose) logs --follow --tail 100 $(ARGS)

##@ Test
test: dev-environment ## all but e2e and faults; ARGS=tests/unit/test_money.py for one
	@$(python) -m pytest --ignore tests/e2e --ignore tests/faults $(in_parallel) $(ARGS)

test-integration: dev-environment ## on PostgreSQL and RabbitMQ in containers
	@REQUIRE_DOCKER=1 $(python) -m pytest tests/integration tests/conformance $(in_parallel) $(ARGS)

faults: dev-environment ## every fault once, under load, then an audit (10 minutes)
	@$(python) -m pytest tests/faults $(ARGS)

soak: dev-environment ## random faults: ORDERS=9000 FAULTS=90 SEED=7 PROVIDER=stripe
	@ORDERS='$(ORDERS)' FAULTS='$(FAULTS)' SEED='$(SEED)' PROVIDER='$(PROVIDER)' $(python) -m tests.faults.soak

bench: dev-environment ## compare with the usual tools (30 minutes); ARGS="--help"
	@$(python) -m bench $(ARGS)

##@ Change
check: dev-environment ## lint, types, import rules, locks, AWS template
	@$(MAKE) --no-print-directory --jobs 2 types lint imports locks template

fmt: dev-environment ## format, and repair what the linter can
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

lock: dev-environment ## write the locks from pyproject.toml; ARGS=--upgrade renews
	@sh deploy/lock.sh $(ARGS)

##@ Deploy
migrate: environment ## prepare the servers at DATABASE_URL and BROKER_URL
	@$(python) -m ops.main migrate $(ARGS)

lambda: dev-environment ## make dist/lambda.zip (ARCH=x86_64 for that platform)
	@sh deploy/aws/package.sh $(ARCH)

lambda-image: ## build the same as an image, orderflow-lambda
	@$(compose) --profile lambda build lambda

# The steps of `make check`.
lint:
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .

types:
	@$(python) -m mypy
	@$(python) -m mypy deploy/venv.py deploy/aws/package.py

imports:
	@$(python) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

locks:
	@sh deploy/lock.sh --check

template:
	@sh deploy/aws/lint.sh

environment:
	@sh deploy/venv.sh requirements.lock

dev-environment:
	@sh deploy/venv.sh requirements-dev.lock
