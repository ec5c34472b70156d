# Two commands are enough: `make run` and `make test`. `make help` lists the others.

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
INSTALLED := $(VENV)/.installed
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2> /dev/null
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python $(SUPPORTED) && echo $$python && break; done)
RECIPE ?= wirebond
CODE := dbp_mae pipelines serving benchmarks tests

# The stages of dvc.yaml run `python`: let it be the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# BentoML reports usage to its makers unless told otherwise before it starts.
export BENTOML_DO_NOT_TRACK := True
# The service writes this log, the monitor reads it.
serve ui: export DBP_MAE_INSPECTION_LOG ?= $(CURDIR)/logs/inspections.jsonl

SERVED = $(firstword $(wildcard models/production/segmenter.onnx) models/segmenter.onnx)

.PHONY: help run test serve ui params

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: $(INSTALLED) ## images -> trained, evaluated model and report; a second time only what changed
	@dvc repro
	@python -m pipelines.summary

# Two processes of one thread each: more threads than cores slow one another.
test: $(INSTALLED) ## ruff, mypy and the tests
	@ruff check $(CODE)
	@ruff format --check $(CODE)
	@mypy
	@OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

serve: $(INSTALLED) ## serve the promoted model, or else the pipeline's, on port 3000
	@DBP_MAE_MODEL=$${DBP_MAE_MODEL:-$(SERVED)} bentoml serve

ui: $(INSTALLED) ## Prefect with its schedules (prefect.yaml), until Ctrl-C
	@python -m pipelines.flows.ui

params: $(INSTALLED) ## write params.yaml from conf/; RECIPE=bsdata takes another recipe
	@python -m pipelines.compose recipe=$(RECIPE)

$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" $(SUPPORTED) || { echo "error: Python 3.11 or 3.12 is needed: install one, or" \
		"name it, as in: make run PYTHON=/usr/bin/python3.12"; exit 1; }
	@echo "Installing into $(VENV), once; some 7 GB."
	@"$(PYTHON)" -m venv $(VENV)
	@python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
