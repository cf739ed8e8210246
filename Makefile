# Needs Python >= 3.10 with its venv, and make. All else goes to .venv.

PYTHON ?= python3
# Processes for the tests that need no other programs.
JOBS ?= 2
UNIT = $(patsubst tests/%/__init__.py,tests.%,$(filter-out tests/integration/%,$(wildcard tests/*/__init__.py))) \
	$(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))

# The tests with other programs.  Most of them share what they have started, so one process runs them;
# another one runs those that need nothing of that, and take as long.
APART = tests.integration.test_image tests.integration.test_page
SHARING = $(filter-out $(APART),$(patsubst tests/integration/%.py,tests.integration.%,\
	$(wildcard tests/integration/test_*.py)))

# What runs once more with the option plain-transport.
PLAIN = tests.transport.test_tls tests.wire.test_loopback tests.wire.test_bounds \
	tests.faults.test_loopback tests.faults.test_process tests.integration.test_mirror \
	tests.integration.test_push tests.integration.test_faults

.NOTPARALLEL:
.PHONY: demo test run bench lint docs dist

# An image pulled through the mirror, from a stand-in of the Hub; no network needed.
demo: .venv/test.stamp
	.venv/bin/python -m hubmirror demo

test: .venv/test.stamp
	.venv/bin/trial --jobs=$(JOBS) $(UNIT)
	.venv/bin/trial --temp-directory=_trial_temp.apart $(APART) > _trial_temp.apart.log 2>&1 & apart=$$!; \
	.venv/bin/trial $(SHARING); status=$$?; \
	wait $$apart || status=1; cat _trial_temp.apart.log; exit $$status
	HUBMIRROR_PLAIN=1 .venv/bin/trial $(PLAIN)

# The mirror of the real Hub, on 127.0.0.1:5000.
run: .venv/test.stamp
	.venv/bin/twistd --nodaemon --pidfile= hubmirror

# What the mirror costs beside nginx: BENCH='--quick' for a first look.
bench: .venv/test.stamp
	.venv/bin/python -m benchmarks $(BENCH)

lint: .venv/lint.stamp
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

docs: .venv/docs.stamp
	.venv/bin/sphinx-build -W --keep-going --quiet docs docs/_build

dist: .venv/release.stamp
	rm -rf dist
	.venv/bin/python -m build

# The project in .venv, editable, with the packages of one of its extras.
.venv/%.stamp: pyproject.toml setup.cfg
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@
