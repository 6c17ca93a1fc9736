# SPDX-License-Identifier: Apache-2.0
# Everything that is built or downloaded goes below build/; build/cache outlives `make clean`.

PYTHON ?= python3
FUZZ_SECONDS ?= 10

BUILD := build
RESULTS := $(BUILD)/results
VENV := $(BUILD)/venv
BIN := $(VENV)/bin
CMAKE := cmake -G Ninja -DMANYPATH_WERROR=ON
C_FILES = $(shell find native -name '*.[ch]')

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

# -- tools -----------------------------------------------------------------------------------------

.PHONY: packages
packages: ## check the Debian packages needed; install them if root
	tools/setup.sh

$(VENV)/ready: tools/requirements-dev.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# The package as users get it, in the environment of the tests. Rebuilding is quick: CMake keeps its
# own build folder.
.PHONY: install
install: packages $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --force-reinstall .

# -- tests -----------------------------------------------------------------------------------------

# The C tests run with sanitizers; cffi loads the shared library of a plain build, as its users do.
.PHONY: native
native: packages
	$(CMAKE) -S . -B $(BUILD)/sanitize -DMANYPATH_BUILD_TESTS=ON -DMANYPATH_SANITIZE=ON
	cmake --build $(BUILD)/sanitize
	$(CMAKE) -S . -B $(BUILD)/native
	cmake --build $(BUILD)/native

.PHONY: unit
unit: native install ## C tests with sanitizers, tests/unit, tests/abi: neither root nor a VM
	mkdir -p $(RESULTS)
	rm -f $(RESULTS)/ctest.xml $(RESULTS)/pytest.xml
	-ctest --test-dir $(BUILD)/sanitize --output-on-failure --output-junit $(abspath $(RESULTS))/ctest.xml
	-$(BIN)/pytest -W error --junitxml=$(RESULTS)/pytest.xml tests/unit tests/abi
	@tools/tally.py $(RESULTS)/ctest.xml $(RESULTS)/pytest.xml

# The engine on a fake host: a scripted iscsid, a sysfs tree, simulated ioctls. Its tests mostly wait, so
# more run at once than there are processors, and what they wait for gets more time.
.PHONY: fake
fake: packages $(VENV)/ready ## the engine against a scripted iscsid: neither root nor a VM
	mkdir -p $(RESULTS)
	rm -f $(RESULTS)/fake.xml
	-MANYPATH_FAKE_PATIENCE=6 $(BIN)/pytest -q -n 4 --junitxml=$(RESULTS)/fake.xml tests/fake
	@tools/tally.py $(RESULTS)/fake.xml

SANITIZERS = $(shell gcc -print-file-name=libasan.so) $(shell gcc -print-file-name=libubsan.so)
.PHONY: fake-asan
fake-asan: packages $(VENV)/ready ## the same with AddressSanitizer and UBSan
	mkdir -p $(RESULTS)
	rm -f $(RESULTS)/fake-asan.xml
	-MANYPATH_FAKE_SANITIZE=address MANYPATH_FAKE_PATIENCE=8 LD_PRELOAD="$(SANITIZERS)" \
	    PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	    $(BIN)/pytest -q -n 2 --junitxml=$(RESULTS)/fake-asan.xml tests/fake
	@tools/tally.py $(RESULTS)/fake-asan.xml

.PHONY: fuzz
fuzz: packages ## run each fuzz harness for FUZZ_SECONDS
	CC=clang $(CMAKE) -S . -B $(BUILD)/fuzz -DMANYPATH_FUZZ=ON -DMANYPATH_FUZZ_SECONDS=$(FUZZ_SECONDS)
	cmake --build $(BUILD)/fuzz
	mkdir -p $(RESULTS)
	rm -f $(RESULTS)/fuzz.xml
	-ctest --test-dir $(BUILD)/fuzz --output-on-failure --output-junit $(abspath $(RESULTS))/fuzz.xml
	@tools/tally.py $(RESULTS)/fuzz.xml

.PHONY: lint
lint: install ## ruff, mypy, stubtest, clang-format, generated tables
	tools/checks.py --junit $(RESULTS)/lint.xml \
	    '$(BIN)/ruff check .' '$(BIN)/ruff format --check .' $(BIN)/mypy \
	    '$(BIN)/stubtest manypath._core' \
	    '$(BIN)/clang-format --dry-run -Werror $(C_FILES)' \
	    'native/tools/gen_layout.py table --check native/layouts/*.layout'

.PHONY: format
format: $(VENV)/ready ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

# -- the lab: real iscsid, LIO, multipathd, udevd and kernel in a VM -------------------------------

# TESTS selects guest tests: files, test ids or pytest options, separated by blanks.
TESTS ?= tests/lab
LAB_SUITE ?= bookworm
LAB_TIMEOUT ?= 3600
LAB_ENV ?=
STAGE := $(BUILD)/lab/stage
LAB_PACKAGES := qemu-system-x86 mmdebstrap squashfs-tools-ng uidmap mount
BOOT = LAB_SUITE=$(LAB_SUITE) $(BIN)/python tests/lab/boot.py

.PHONY: lab-packages
lab-packages:
	tools/setup.sh $(LAB_PACKAGES)

# What the guest gets besides tests/: the package as users install it, the C library, the floor; and
# the package once more, with the points at which tests kill the process, which only those look at.
.PHONY: stage
stage: native $(VENV)/ready
	rm -rf $(STAGE) $(BUILD)/lab/wheel $(BUILD)/lab/wheel-faults
	mkdir -p $(STAGE)/bin $(STAGE)/lib $(STAGE)/include/manypath $(STAGE)/site-packages
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --wheel-dir $(BUILD)/lab/wheel .
	$(BIN)/python -m zipfile -e $(BUILD)/lab/wheel/*.whl $(STAGE)/site-packages
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings=build-dir=$(BUILD)/faults \
	    --config-settings=cmake.define.MANYPATH_FAULTS=ON --wheel-dir $(BUILD)/lab/wheel-faults .
	$(BIN)/python -m zipfile -e $(BUILD)/lab/wheel-faults/*.whl $(STAGE)/site-packages-faults
	cp -L $(BUILD)/native/libmanypath.so $(STAGE)/lib/
	cp native/include/manypath/manypath.h $(STAGE)/include/manypath/
	install -m 755 tests/lab/manypath.sh $(STAGE)/bin/manypath

.PHONY: lab
lab: lab-packages stage ## tests in a VM; TESTS=... LAB_SUITE=bookworm|trixie
	mkdir -p $(RESULTS) $(BUILD)/lab/results
	rm -f $(RESULTS)/lab-$(LAB_SUITE).xml $(BUILD)/lab/results/junit.xml
	-$(BOOT) run --timeout $(LAB_TIMEOUT) $(LAB_ENV) -- python3 -m pytest -p no:cacheprovider \
	    -o junit_family=xunit1 --junitxml=/results/junit.xml $(TESTS)
	-cp $(BUILD)/lab/results/junit.xml $(RESULTS)/lab-$(LAB_SUITE).xml
	@tools/tally.py $(RESULTS)/lab-$(LAB_SUITE).xml

.PHONY: lab-shell
lab-shell: lab-packages stage ## a root shell in the VM, with manypath installed
	$(BOOT) shell

.PHONY: demo
demo: lab-packages stage ## the main job, shown: attach over four portals, lose one, detach
	$(BOOT) run --timeout 600 -- python3 -u tests/lab/demo.py

.PHONY: bench
bench: lab-packages install ## micro benches here, manypath beside the floor in the VM
	$(BIN)/pytest -q benches/test_micro.py
	$(BIN)/python benches/lab/host.py

# The long form of what `make test` samples, all of it in both guests, with multipathd stopped and running.
LAB_LONG := $(addprefix -e LAB_,CYCLES=100 RACES=300 KILLS=0 HANGS=0 IO_SECONDS=600 ROUNDS_REUSE=100)

.PHONY: soak
soak: ## the long runs, many hours
	$(MAKE) lab LAB_SUITE=bookworm LAB_ENV='$(LAB_LONG)' LAB_TIMEOUT=43200
	$(MAKE) lab LAB_SUITE=trixie LAB_ENV='$(LAB_LONG)' LAB_TIMEOUT=43200
	$(MAKE) fake-asan
	$(MAKE) fuzz FUZZ_SECONDS=600

# -- all of it -------------------------------------------------------------------------------------

# In `make test` the guests share the tests of the lab: the first has the variants without multipathd and
# all that does not care, the second those with it. `make soak` has all in both.
# Each suite runs even if one before it failed; the sum at the end decides.
.PHONY: test
test: ## lint, unit, fake host, short fuzz runs, and the lab in both guests; sums up
	mkdir -p $(RESULTS)
	rm -f $(RESULTS)/*.xml
	-$(MAKE) lint
	-$(MAKE) unit
	-$(MAKE) fake
	-$(MAKE) fuzz FUZZ_SECONDS=5
	-$(MAKE) lab LAB_SUITE=bookworm TESTS='tests/lab --half=first'
	-$(MAKE) lab LAB_SUITE=trixie TESTS='tests/lab --half=second'
	@tools/tally.py $(addprefix $(RESULTS)/,lint.xml ctest.xml pytest.xml fake.xml fuzz.xml \
	    lab-bookworm.xml lab-trixie.xml)

# -- packages --------------------------------------------------------------------------------------

.PHONY: wheel
wheel: $(VENV)/ready ## build dist/: the sdist, and the wheel from the sdist
	$(BIN)/python -m build --outdir dist

.PHONY: clean
clean: ## remove what was built, keep build/cache
	rm -rf dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(BUILD) -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} + 2>/dev/null || true
