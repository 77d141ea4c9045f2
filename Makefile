# make demo      the main job, shown on a real VM
# make demo-server  a server, two tenants, a host of each with a real VM, and what a browser shows: [STAY=1]
# make test      lint and every test (real VMs); make test-fast: the tests without a VM
# make test-qemu the tests that tell most of a QEMU, with that of another Debian: make test-qemu [SUITE=trixie]
# make soak      the long tests (tests/long.py), the fuzzers, faults without end; those alone: make soak [SEED=1] [CYCLES=10000]
#                [PLANT=a bug to be caught]
# make coverage  which branches of the core the tests take; fails under 95 %
# make mutants   whether a test fails when a line of what decides is wrong: docs/testing.md
# make times     which tests took longest in the last `make test`, and why
# make bench     the numbers in docs/benchmarks.md, and what became slower since they were published last
# make fuzz      every decoder of what others write, SECONDS=60 each, with a coverage-guided fuzzer
# make package   what is published, in dist/: wheel, sources, Debian packages, bill of materials; of what is committed
# make test-package       those packages in a Debian with systemd; make test-reproducible: made twice, they are the same
# make release VERSION=…  gathers changelog.d into CHANGELOG.md, commits, tags, makes what is published
# make docs      the site of the documentation, in build/handbook/html; fails where a link leads nowhere
# Each target installs what is missing first: see scripts/setup.

PYTHON := .venv/bin/python

# No paths of the caller. And what was compiled is kept, or each of thousands of processes would compile everything anew.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.PHONY: setup docs demo demo-server test test-fast test-qemu package test-package test-reproducible release soak coverage mutants times bench bench-plan bench-choices fuzz lint clean

TESTS_OF_CORE := tests/backup tests/fuzz tests/host tests/hypervisor tests/load tests/repository tests/simulation tests/tracking \
    tests/test_blocks.py tests/test_logentries.py tests/test_errors.py tests/test_extents.py tests/test_plain.py tests/test_units.py
SECONDS := 60
SUITE := trixie
TESTS_OF_QEMU := tests/hypervisor/qemu tests/e2e/test_exact.py tests/e2e/test_overlays.py tests/e2e/test_proxmox.py

setup:
	@scripts/setup

demo: setup
	$(PYTHON) -m bench.demo

demo-server: setup
	$(PYTHON) -m bench.demo_server $(if $(STAY),--stay)

# Four at a time on two cores, and three guests at a time: tests wait a lot. What looks at times is "alone".
test: lint
	$(PYTHON) -m pytest -n 4 --dist loadfile -m "not vm and not long and not alone and not package" --junitxml build/times/fast.xml
	$(PYTHON) -m pytest -n 3 --dist loadfile -m "vm and not long and not alone" --junitxml build/times/vm.xml
	$(PYTHON) -m pytest -m "alone and not long" --junitxml build/times/alone.xml

times: setup
	@$(PYTHON) -m tests.times $(wildcard build/times/*.xml)

test-fast: setup
	$(PYTHON) -m pytest -n 4 --dist loadfile -m "not vm and not long and not alone and not package"

# As root; 0.4 GB.
test-qemu: setup
	scripts/qemu-root $(SUITE) build/qemu-$(SUITE)
	PATH=$(CURDIR)/build/qemu-$(SUITE)/qemu-bin:$$PATH $(PYTHON) -m pytest $(TESTS_OF_QEMU) -k "not libvirt"

package: setup
	scripts/package

# As root; 2 GB, and ten minutes, or much more on a busy machine.
test-package: package
	scripts/install systemd-container debootstrap lintian
	$(PYTHON) -m pytest -m package

test-reproducible: setup
	scripts/reproducible

release: setup
	scripts/release "$(VERSION)"
	scripts/package

soak: setup
	$(if $(SEED)$(CYCLES)$(PLANT),,$(PYTHON) -m pytest -n 2 --dist loadfile -m long)
	$(if $(SEED)$(CYCLES)$(PLANT),,$(MAKE) fuzz)
	@$(PYTHON) -m tests.soak $(if $(SEED),--seed $(SEED)) $(if $(CYCLES),--cycles $(CYCLES)) $(if $(PLANT),--plant $(PLANT))

coverage: setup
	$(PYTHON) -m coverage run -m pytest -q -m "not vm and not long and not alone" $(TESTS_OF_CORE)
	@$(PYTHON) -m tests.branches

mutants: setup
	@UV_SYSTEM_CERTS=true build/bootstrap/bin/uv sync --quiet --frozen --all-extras --group mutants --python $(PYTHON)
	.venv/bin/mutmut run
	.venv/bin/mutmut results

bench: setup
	@scripts/setup-bench
	$(PYTHON) -m bench.run

docs: setup
	$(PYTHON) -m handbook

# No VM: made-up traces in virtual time, about 15 minutes.
bench-plan: setup
	$(PYTHON) -m bench.sweep

# No VM: what the numbers of the repository's format were chosen by, docs/choices.md, about 5 minutes.
bench-choices: setup
	$(PYTHON) -m bench.choices

fuzz: setup
	@UV_SYSTEM_CERTS=true build/bootstrap/bin/uv sync --quiet --frozen --all-extras --group fuzz --python $(PYTHON)
	$(PYTHON) -m tests.fuzz all $(SECONDS)

lint: setup
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/deptry src

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
