# Each target does its own set-up; PYTHON picks the interpreter the environment is made with.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= data

.PHONY: demo test test-long next lint format bench fuzz chaos gpu-check requirements images wheel-check clean

demo: $(VENV)/ready
	$(BIN)/python -m experiments.run --model aspn --dataset shapes --data_root $(DATA) --seeds 1

test: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not long"

# Kills, replicas and whole trainings that take long beside others of their kind in `make test`.
test-long: $(VENV)/ready
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m long

# `make test` with the newest TensorFlow and Keras that there are, whatever setup.cfg allows; pip says what that breaks.
next:
	$(PYTHON) -m venv build/next
	build/next/bin/python -m pip install --quiet --editable '.[dev]'
	build/next/bin/python -m pip install --quiet --upgrade --pre tensorflow keras
	build/next/bin/python -m pytest --numprocesses auto --dist loadfile -m "not long"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/ready
	$(BIN)/python -m experiments.speed

# Damaged files and requests, ten thousand of each kind; the tests take a few of them.
fuzz: $(VENV)/ready
	ZSLKERAS_FUZZ=10000 $(BIN)/python -m pytest --numprocesses auto tests/fuzz

# Fifty kills at random moments, and a server under attack; each ends with a line that has the figures.
chaos: $(VENV)/ready
	$(BIN)/python -m tests.campaigns.kills
	$(BIN)/python -m tests.campaigns.attacks

# Tests, step times and images a second on one GPU. Writes gpu-check.json; see docs/gpu.md.
gpu-check: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --constraint docker/constraints.txt --editable '.[dev,cuda]'
	$(BIN)/python -m experiments.gpu

# What the images install, with the hashes of all its files; after a change of setup.cfg or docker/constraints.txt.
requirements:
	$(PYTHON) -m venv build/uv && build/uv/bin/python -m pip install --quiet 'uv>=0.9,<1'
	for extra in '' '-cuda'; do build/uv/bin/uv pip compile --quiet --generate-hashes --no-annotate --no-header \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --constraint docker/constraints.txt \
	  $${extra:+--extra cuda} --output-file docker/requirements$$extra.txt setup.cfg || exit 1; done

# The CPU image, by docker or by buildah; see docker/build.
images:
	docker/build

# Installs the wheel into a new environment, as a user does.
wheel-check:
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	build/wheel/env/bin/python -m pip install --quiet --constraint docker/constraints.txt build/wheel/*.whl
	cd build/wheel && env/bin/zslkeras --help && env/bin/python -c "import zslkeras; print(zslkeras.MSDN.Config())"

clean:
	rm -rf $(VENV) *.egg-info build

# The tested versions, so that a fresh machine gets what CI got.
$(VENV)/ready: setup.cfg pyproject.toml docker/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint docker/constraints.txt --editable '.[dev]'
	touch $@
