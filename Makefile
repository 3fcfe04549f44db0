# `make quickstart` and `make test` are all that a newcomer needs: Rust, Python 3.11 or newer, and make.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := $(CURDIR)/target/debug
# One Python runtime for all daemons that the tests start.
export AIRFLOW_SERVERLESS_RUNTIMES ?= $(CURDIR)/target/runtimes

.PHONY: build quickstart test lint test-rust test-python browser openapi coverage-table conformance corpus record-corpus lock bench endurance clean

build:
	cargo build --locked --workspace

quickstart:
	cargo build --locked -p airflowd -p airflow-serverless
	PATH="$(BIN):$$PATH" BIN="$(BIN)" env -u AIRFLOW_SERVERLESS_RUNTIMES examples/quickstart.sh

test: build lint test-rust test-python

PYTHON_CODE := modal_functions modal/emulator tests/python tests/corpus tests/data examples bench

lint: .venv/complete
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	.venv/bin/ruff check $(PYTHON_CODE)
	.venv/bin/ruff format --check $(PYTHON_CODE)
	.venv/bin/mypy
	.venv/bin/mypy --strict modal/emulator/src/containers/runner.py

test-rust: build .venv/complete
	cargo test --locked --workspace

test-python: build .venv/complete browser
	.venv/bin/pytest tests/python -n auto --dist loadfile --ignore tests/python/test_corpus.py

# The API's page is tested in Chromium. Where there is none and none can be installed, these tests are skipped.
browser:
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  test "$$(id -u)" = 0 && command -v apt-get && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || \
	  echo "No browser: the API page will not be tested" >&2

# The interpreter of the Python tests: the pinned runtime and the tools of requirements-dev.in.
.venv/complete: modal_functions/requirements-dev.lock
	rm -rf .venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	.venv/bin/uv pip install --quiet --require-hashes --python .venv/bin/python -r modal_functions/requirements-dev.lock
	touch $@

# Measures, and never judges: machines are noisy. PROFILE=release builds and measures the release.
PROFILE ?= debug
BENCH_BUILD := cargo build --locked $(if $(filter release,$(PROFILE)),--release)
bench: .venv/complete
	$(BENCH_BUILD) -p airflowd -p airflow-serverless -p modal-emulator
	$(BENCH_BUILD) -p modal-client --example load
	$(BENCH_BUILD) -p integration-tests --example load_daemon
	PROFILE=$(PROFILE) $(PYTHON) bench/first_light.py
	PROFILE=$(PROFILE) $(PYTHON) bench/watch.py
	PROFILE=$(PROFILE) .venv/bin/python bench/daemon.py
	PROFILE=$(PROFILE) .venv/bin/python bench/modal_local.py
	PROFILE=$(PROFILE) MODAL_LOCAL_BIN=$(CURDIR)/target/$(PROFILE)/modal-local PYTHONPATH=tests/python \
	  .venv/bin/python bench/tick.py
	PROFILE=$(PROFILE) .venv/bin/python bench/airflow.py

# Has a daemon work for two weeks, whose nights are short: does it grow? Takes many minutes.
endurance: build
	cargo test --locked -p integration-tests --test it -- --ignored --nocapture weeks_of_work

# Writes the API's description; a test fails while it is stale.
openapi: build
	$(BIN)/airflowd --print-openapi > openapi/airflowd.json

# Drives the SDK and its command line through all that Local Modal does, in both Volume modes.
conformance: build .venv/complete
	for mode in bind strict; do \
	  LOCAL_MODAL_VOLUMES=$$mode .venv/bin/pytest tests/python -k local_modal -n auto --dist loadfile || exit 1; done

# Writes the table of the RPCs that Local Modal speaks, with the tests that ask for them.
coverage-table: export LOCAL_MODAL_RPCS := $(CURDIR)/target/rpcs.jsonl
coverage-table: build .venv/complete
	rm -f $(LOCAL_MODAL_RPCS)
	.venv/bin/pytest tests/python -n auto --dist loadfile --deselect tests/python/test_local_modal_coverage.py::test_the_table_is_true
	cd tests/python && ../../.venv/bin/python coverage_table.py

# Runs the corpus of DAGs, on both databases, and compares with how it ends on stock Airflow. Takes many minutes.
corpus: build .venv/complete
	.venv/bin/pytest tests/python/test_corpus.py

# Writes how the corpus of DAGs ends on stock Airflow, with which the tests compare. Takes minutes.
record-corpus: .venv/complete
	cd tests/python && ../../.venv/bin/python record_stock.py

lock: .venv/complete
	cd modal_functions && for name in requirements requirements-dev; do \
	  ../.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-header --no-emit-index-url --output-file $$name.lock $$name.in; done

clean:
	cargo clean
	rm -rf .venv
