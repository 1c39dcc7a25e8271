# What can be done here; `make help` lists it. Nothing is needed beforehand but Debian 12 with python3 and git.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Another interpreter has an environment of its own: `make test PYTHON=python3.12` uses .venv-3.12.
PYTHON ?= python3
VENV := .venv$(patsubst python%,-%,$(filter-out python3,$(notdir $(PYTHON))))
# Where `make install` puts things.
PREFIX ?= /opt/tinyo
BIN ?= /usr/local/bin
UNITS ?= /etc/systemd/system
# Which tests to run; all of them, with coverage, unless it is set: `make test TESTS=tests/unit`.
TESTS ?=
# How long `make fuzz` searches in the parsers, and about how long in stacks of layers.
FUZZ_SECONDS ?= 60

UV := $(VENV)/bin/uv
PIP := $(UV) pip install --quiet --python $(VENV)/bin/python
# The contracts are generated when they are built; the sources of the services stay where they are.
CONTRACTS := protos/setup.py protos/pyproject.toml $(shell find protos/tinyo -name '*.proto')
SERVICES := $(wildcard services/*)
RUN_PACKAGES := python3-venv libnftables1 libseccomp2 busybox-static catatonit
TEST_PACKAGES := iproute2 nftables skopeo umoci docker-registry mmdebstrap strace podman conmon
VM_PACKAGES := qemu-system-x86 kmod apparmor e2fsprogs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## install what running needs: Debian packages, an environment, the services

demo: setup ## bring up the first example, look at it from all sides, take it away again
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m scripts.demo

test: $(VENV)/.developing ## run every check and every test, some of them in test-v2 too
	@VENV=$(VENV) scripts/test $(TESTS)
	@$(if $(strip $(TESTS)),,$(MAKE) test-v2)

test-v2: $(VENV)/.developing ## run tests on a kernel with pure cgroup v2 and AppArmor, in a virtual machine (TESTS=...)
	@VENV=$(VENV) PACKAGES="$(VM_PACKAGES)" scripts/test-v2 $(TESTS)

test-all: ## the same on every Python from 3.11 on that is here
	@for python in $$(scripts/pythons); do echo "== $$python"; $(MAKE) test PYTHON=$$python; done

fuzz: $(VENV)/.fuzzing ## search for what the readers of images cannot stand (FUZZ_SECONDS=60)
	@$(VENV)/bin/python -m tests.fuzz $(FUZZ_SECONDS)
	@VENV=$(VENV) FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/test tests/integration/test_images_properties.py

format: $(VENV)/.developing ## put the sources into shape
	@$(VENV)/bin/ruff check --quiet --fix . ; $(VENV)/bin/ruff format --quiet .

budget: ## count code lines, by module and of the core
	@$(PYTHON) scripts/budget.py

bench: setup ## measure side by side with docker, podman, crun and runc
	@scripts/apt docker.io containerd crun runc podman busybox-static
	@scripts/apt skopeo docker-registry mmdebstrap e2fsprogs iproute2
	@$(VENV)/bin/python -m bench.run
	@$(VENV)/bin/python -m bench.pull

picture: setup ## draw docs/demo.svg, what `make demo` prints
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m scripts.picture

compose-dev: setup ## bring up docker-compose.dev.yml with the real engine, and the example in it
	@scripts/apt docker.io docker-compose mmdebstrap
	@$(VENV)/bin/python -m scripts.compose_dev

install: $(VENV)/.installed ## put tinyo on the PATH, and its systemd units in place
	@UV=$(CURDIR)/$(UV) PYTHON=$(PYTHON) PREFIX=$(PREFIX) BIN=$(BIN) UNITS=$(UNITS) scripts/install

uninstall: ## take back what install did (PURGE=1: images and containers' files as well)
	@PREFIX=$(PREFIX) BIN=$(BIN) UNITS=$(UNITS) scripts/uninstall

lock: $(VENV)/.installed ## choose the newest versions of what requirements/ pins
	@compile="$(CURDIR)/$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate"; \
	$$compile $(SERVICES:=/pyproject.toml) --no-emit-package tinyo-protos -o requirements/run.txt; \
	$$compile requirements/build.in -c requirements/run.txt -o requirements/build.txt; \
	$$compile requirements/dev.in -c requirements/run.txt -c requirements/build.txt -o requirements/dev.txt; \
	$$compile requirements/fuzz.in -o requirements/fuzz.txt

clean: ## remove what was made in this folder
	@rm -rf .venv* .coverage* build protos/build services/*/build .*_cache .hypothesis
	@find . -name __pycache__ -o -name '*.egg-info' -prune | xargs rm -rf

.PHONY: help setup demo test test-v2 test-all fuzz format budget bench picture compose-dev install uninstall lock clean
.PHONY: run-packages

# An environment is complete when its stamp is newer than what it was made from.

run-packages:
	@scripts/apt $(RUN_PACKAGES)

$(VENV)/bin/uv: requirements/uv.txt | run-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is too old: 3.11 or newer is needed")'
	@scripts/phase "an environment for Python in $(VENV)" $(PYTHON) -m venv --clear $(VENV)
	@scripts/phase "uv" $(VENV)/bin/python -m pip install --quiet --require-hashes -r $<
	@touch $@

$(VENV)/.libraries: requirements/run.txt requirements/build.txt $(VENV)/bin/uv
	@scripts/phase "libraries" $(PIP) --require-hashes --compile-bytecode -r requirements/run.txt -r requirements/build.txt
	@touch $@

$(VENV)/.contracts: $(CONTRACTS) $(VENV)/.libraries
	@rm -rf protos/build
	@scripts/phase "contracts" $(PIP) --no-build-isolation --no-deps --reinstall ./protos
	@touch $@

$(VENV)/.installed: $(SERVICES:=/pyproject.toml) $(VENV)/.contracts | run-packages
	@scripts/phase "services" $(PIP) --no-build-isolation --no-deps --reinstall $(SERVICES:%=--editable %)
	@touch $@

$(VENV)/.developing: requirements/dev.txt $(VENV)/.installed
	@scripts/apt $(TEST_PACKAGES)
	@scripts/phase "tools for developing" $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.fuzzing: requirements/fuzz.txt $(VENV)/.developing
	@scripts/phase "a fuzzer" $(PIP) --require-hashes -r requirements/fuzz.txt
	@touch $@
