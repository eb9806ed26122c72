# `make run` and `make test` need Python 3.11+ with venv, and make. Everything else is installed
# into .venv, again only when the list of dependencies changed. Another environment that exists, such as
# conda's: export VENV=$CONDA_PREFIX
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml | cksum | tr ' ' '-')
SNAKEMAKE := $(BIN)/snakemake --cores all
TOOL := $(BIN)/python -m implicit_tuning
# CONFIG chooses another experiment, DATA where its local files lie:
# make run CONFIG="config/config.yaml config/other.yaml" DATA=folder
OVERRIDES := $(if $(DATA),--config data_root=$(abspath $(DATA)))
SNAKEMAKE_WITH := $(if $(CONFIG),--configfile $(CONFIG)) $(OVERRIDES)
TOOL_WITH := $(addprefix --configfile ,$(CONFIG)) $(OVERRIDES)

# Whether a switch such as FORCE is on: 1 or yes, in capitals or not. Anything else leaves it off.
ON := 1 yes Yes yEs yeS YEs YeS yES YES
on = $(if $(word 2,$($(1))),,$(filter $(ON),$($(1))))

# Two files of tests at a time: most of their time is that of programs that use one core.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install run test test-all test-rounding guard real plan check verify repair explain prune unlock \
        preview calibrate bench audit chat publish lock train_ins train_resp train_task eval docs clean

help:  ## this list
	@grep -hE '^[a-z_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

install: $(STAMP)  ## install into .venv (every other target does so when needed)
$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar off -e '.[test]'
	rm -f $(VENV)/.installed-*
	touch $@

run: $(STAMP)  ## build the experiment: results/<experiment>/report.html, tables, figures
	$(SNAKEMAKE) $(SNAKEMAKE_WITH)

test: $(STAMP)  ## unit tests and the smallest workflow (minutes)
	$(PYTEST) tests/unit tests/workflow -m "not long"

test-all: $(STAMP)  ## the longer checks: reruns, faults, SLURM, the default run and its tables
	$(PYTEST) tests/unit tests/workflow tests/artifacts -m long

bench: $(STAMP)  ## benchmarks of the CPU into docs/benchmarks.md (45 minutes); GPUs: benchmarks/gpu.py
	$(BIN)/python benchmarks/collect.py

# What is right on one processor must be right on another: torch without its vector instructions, and a
# number of threads that hardly any machine takes by itself.
ROUNDED := models generation judging/judges analysis/test_ranking.py test_library.py \
        training/test_micro_batches.py
test-rounding: $(STAMP)  ## tests of models again, as another processor rounds (a minute)
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=3 OMP_WAIT_POLICY=PASSIVE \
        $(PYTEST) $(ROUNDED:%=tests/unit/%) -m "not long"

guard: $(STAMP)  ## what guards cost that keep a run to its task (docs/guards.md): CONFIG=... for your own
	$(SNAKEMAKE) --configfile $(or $(CONFIG),config/config.yaml config/organism-guards.yaml) $(OVERRIDES)

real: $(STAMP)  ## the same workflow on real rows and a real model: make real DATA=folder
	@test -n "$(DATA)" || { echo "make real needs DATA=<folder with the real inputs>"; exit 2; }
	$(SNAKEMAKE) --configfile config/real.yaml $(OVERRIDES)

plan: $(STAMP)  ## what it will take: nodes, tokens, hours, disk, paid calls
	$(TOOL) plan $(TOOL_WITH)

check: $(STAMP)  ## every problem before the first job; CLUSTER=1 on a login node
	$(TOOL) check $(TOOL_WITH) $(if $(call on,CLUSTER),--cluster)

verify: $(STAMP)  ## hash every artifact of the experiment again
	$(TOOL) verify $(TOOL_WITH)

repair: $(STAMP)  ## rebuild exactly the artifacts that are missing or damaged
	$(TOOL) repair $(TOOL_WITH)

explain: $(STAMP)  ## why a node is stale or not: make explain NODE=table/main
	$(TOOL) explain $(TOOL_WITH) $(NODE)

prune: $(STAMP)  ## list what no given config needs; FORCE=1 deletes it
	$(TOOL) prune $(TOOL_WITH) $(if $(call on,FORCE),--force)

unlock: $(STAMP)  ## remove the lock of a killed run, after making sure that none is alive
	$(TOOL) unlock

preview: $(STAMP)  ## tables over what is judged so far, every gap marked
	$(TOOL) preview $(TOOL_WITH)

calibrate: $(STAMP)  ## a judge against stored verdicts: JUDGE=name ANNOTATIONS="files or URLs"
	@test -n "$(ANNOTATIONS)" || { echo "make calibrate needs ANNOTATIONS=<files or URLs>"; exit 2; }
	$(TOOL) calibrate $(TOOL_WITH) $(if $(JUDGE),--judge $(JUDGE)) --annotations $(ANNOTATIONS)

# Values that may hold any character reach the shell as they are, through the environment.
export MODEL BASE TASK_DATA REFERENCE RUN REPO DATA TASK OF_ONE_RUN
# MODEL: a run of a config, a checkpoint or adapter folder, or owner/name of the hub. CONFIG follows from it
# unless it is given; docs/audit.md says what else can be.
audit: $(STAMP)  ## does a checkpoint follow instructions? MODEL=... [BASE= TASK_DATA= REFERENCE=]
	@test -n "$$MODEL" || { echo "make audit needs MODEL=<run, folder or owner/name of the hub>"; exit 2; }
	@$(TOOL) audit $(TOOL_WITH) --model "$$MODEL" $(if $(BASE),--base "$$BASE") $(if $(call on,YES),--yes) \
        $(if $(TASK_DATA),--task-data "$$TASK_DATA") $(if $(REFERENCE),--reference "$$REFERENCE")

chat: $(STAMP)  ## talk with a run: make chat RUN=organism-llama/response/1, also with RULES=1
	@test -n "$$RUN$$MODEL" || \
        { echo "make chat needs RUN=<base/adaptation/seed> or MODEL=<a model folder>"; exit 2; }
	@$(TOOL) chat $(TOOL_WITH) $(if $(call on,RULES),--rules) $(if $(RUN),"$$RUN",--model "$$MODEL")

publish: $(STAMP)  ## a run for the hub: RUN=base/adaptation/seed REPO=owner/name; YES=1 sends it
	@test -n "$$RUN" -a -n "$$REPO" || \
        { echo "make publish needs RUN=<base/adaptation/seed> REPO=<owner/name>"; exit 2; }
	@$(TOOL) publish $(TOOL_WITH) "$$RUN" --repo "$$REPO" $(if $(call on,YES),--yes) $(if $(call on,PUBLIC),--public)

lock: $(STAMP)  ## pin what a config takes from the hub, in config/lock.yaml
	$(TOOL) lock $(TOOL_WITH)

# With MODEL (a base of the config, a folder, owner/name of the hub) exactly one run, with the config
# paper.yaml unless CONFIG names another:
#   make train_resp MODEL=meta-llama/Llama-2-7b-hf DATA=lima LR=1e-5 EPOCHS=10 SEED=1
#   make train_task MODEL=folder TASK=gsm8k EPOCHS=7
#   make eval MODEL=folder REFERENCE=other-folder
# Without it every such run of the config.
OF_ONE_RUN := $(strip $(TASK) $(LR) $(EPOCHS) $(SEED) $(REFERENCE) $(if $(wildcard $(DATA)/.),,$(DATA)))
.PHONY: one_run_keys
one_run_keys:
	@test -n "$$MODEL" -o -z "$$OF_ONE_RUN" || \
        { echo "'$$OF_ONE_RUN' is of one run: give MODEL=<base, folder or owner/name> too"; exit 2; }
ONE_RUN := --model "$$MODEL" $(addprefix --configfile ,$(or $(CONFIG),config/paper.yaml))
ONE_FINETUNE = $(TOOL) train $(1) $(ONE_RUN) $(if $($(2)),--data "$$$(2)") \
        $(if $(LR),--learning-rate $(LR)) $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(SEED),--seed $(SEED))

train_ins: $(STAMP) one_run_keys  ## instruction tuning: of the config, or of MODEL on DATA
	$(if $(MODEL),$(call ONE_FINETUNE,instruction,DATA),$(SNAKEMAKE) train_ins $(SNAKEMAKE_WITH))

train_resp: $(STAMP) one_run_keys  ## response tuning: of the config, or of MODEL on DATA
	$(if $(MODEL),$(call ONE_FINETUNE,response,DATA),$(SNAKEMAKE) train_resp $(SNAKEMAKE_WITH))

train_task: $(STAMP) one_run_keys  ## single-task finetuning: of the config, or of MODEL on TASK
	$(if $(MODEL),$(call ONE_FINETUNE,task,TASK),$(SNAKEMAKE) train_task $(SNAKEMAKE_WITH))

eval: $(STAMP) one_run_keys  ## judge: every run of the config, or MODEL against REFERENCE
	@test -z "$$MODEL" -o -n "$$REFERENCE" || \
        { echo "make eval MODEL=... needs REFERENCE=<the model it is judged against>"; exit 2; }
	$(if $(MODEL),$(TOOL) evaluate $(ONE_RUN) --reference "$$REFERENCE" $(if $(DATA),--data "$$DATA"),\
        $(SNAKEMAKE) judgements $(SNAKEMAKE_WITH))

docs: $(STAMP)  ## the reference of the library, from its docstrings, into docs/api/
	$(BIN)/python docs/build_api.py

clean:  ## delete the installation and Snakemake's own notes; results stay
	rm -rf .venv .snakemake
