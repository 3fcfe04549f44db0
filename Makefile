# `make quickstart` and `make test` are all that a newcomer needs: Rust, Python 3.11 or newer, and make.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := $(CURDIR)/target/debug
# One Python runtime for all daemons that the tests start.
export AIRFLOW_SERVERLESS_RUNTIMES ?= $(CURDIR)/target/runtimes
# What Python compiles is kept for the next process: each worker of pytest, and each environment of an image.
unexport PYTHONDONTWRITEBYTECODE

# Every crate of the workspace is compiled by clippy's driver where tests are: one build for lint and tests.
CHECKED := RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/.ci/rustc-clippy
STAGE := .ci/stage
# Tests wait about as much as they compute: more than two at a time keep two processors busy.
RUST_THREADS ?= 3
PYTEST_WORKERS ?= 4

.PHONY: build quickstart test lint lint-rust lint-python docs docs-reference test-rust test-python run-rust run-python \
	browser openapi proto airflow-options coverage-table conformance corpus generated record-corpus lock bench \
	bench-quickstart endurance mutants clean

build:
	cargo build --locked --workspace

quickstart:
	cargo build --locked -p airflowd -p airflow-serverless
	PATH="$(BIN):$$PATH" BIN="$(BIN)" env -u AIRFLOW_SERVERLESS_RUNTIMES examples/quickstart.sh

# One suite after the other: side by side they slow each other down, and tests with limits on time fail.
test:
	@rm -rf target/stages
	@$(MAKE) --no-print-directory --jobs --output-sync=target lint browser && \
	$(MAKE) --no-print-directory run-rust && $(MAKE) --no-print-directory run-python; \
	status=$$?; $(STAGE) --table; exit $$status

PYTHON_CODE := modal_functions modal/emulator tests/python tests/corpus tests/data tests/mutations examples bench docs \
  .ci/stage

lint: lint-rust lint-python docs

# All at once: dependencies of tests add features to those of the programs, which would be compiled twice.
lint-rust:
	$(STAGE) rust-format cargo fmt --all --check
	$(CHECKED) $(STAGE) rust-build cargo build --quiet --locked --workspace --all-targets

lint-python: .venv/complete
	.venv/bin/ruff check $(PYTHON_CODE)
	.venv/bin/ruff format --check $(PYTHON_CODE)
	$(PYTHON) tests/mutations/run.py --check
	$(STAGE) mypy .venv/bin/mypy
	.venv/bin/mypy --strict modal/emulator/src/containers

# Builds the book below target/book, and checks all links of the documentation.
docs: target/mdbook/complete
	MDBOOK_LOG=warn target/mdbook/bin/mdbook build docs
	$(PYTHON) docs/check_links.py target/book

target/mdbook/complete: docs/requirements.lock
	rm -rf target/mdbook
	$(PYTHON) -m venv target/mdbook
	target/mdbook/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r docs/requirements.lock
	touch $@

# Writes the pages of the reference that are made from the code; tests fail while they are stale.
docs-reference:
	UPDATE_DOCS_REFERENCE=1 cargo test --locked --quiet -p airflow-serverless page_of_the_command_line
	$(PYTHON) docs/reference.py

test-rust: lint-rust .venv/complete run-rust

test-python: lint-rust .venv/complete browser run-python

run-rust:
	$(CHECKED) RUST_TEST_THREADS=$(RUST_THREADS) $(STAGE) rust-tests cargo test --quiet --locked --workspace

run-python:
	$(STAGE) python-tests .venv/bin/pytest tests/python -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder \
	  --ignore tests/python/test_corpus.py

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

# Benchmarks only, no thresholds: machines are noisy. PROFILE=release builds and measures the release.
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
	PROFILE=$(PROFILE) MODAL_LOCAL_BIN=$(CURDIR)/target/$(PROFILE)/modal-local PYTHONPATH=tests/python \
	  .venv/bin/python bench/writes.py
	PROFILE=$(PROFILE) MODAL_LOCAL_BIN=$(CURDIR)/target/$(PROFILE)/modal-local PYTHONPATH=tests/python \
	  .venv/bin/python bench/due.py
	PROFILE=$(PROFILE) .venv/bin/python bench/against_stock.py

# Measures `make quickstart` in a fresh clone, and the processes that it leaves running. Takes minutes.
bench-quickstart:
	$(PYTHON) bench/quickstart.py

# Soak test: two simulated weeks, checks for leaks. Takes many minutes.
endurance: build
	cargo test --locked -p integration-tests --test it -- --ignored --nocapture weeks_of_work

# Breaks one line at a time and runs the test that must fail then. Takes hours.
mutants: .venv/complete
	.venv/bin/python tests/mutations/run.py

# Writes the API's description; a test fails while it is stale.
openapi: build
	$(BIN)/airflowd --print-openapi > openapi/airflowd.json

# Writes the options that Airflow knows from the pinned Airflow; a test fails while the file is stale.
airflow-options: .venv/complete
	AIRFLOW_HOME="$(CURDIR)/target/airflow-home" .venv/bin/python tests/python/airflow_options.py > target/known.json
	mv target/known.json api/src/airflow_options/known.json

# Writes the Rust code of Modal's protocol from modal/proto/proto; a test fails while it is stale.
proto:
	cargo run --locked -q -p modal-proto --example generate > target/generated.rs
	mv target/generated.rs modal/proto/src/generated.rs

# Drives the SDK and its command line through all that Local Modal does, in both Volume modes.
conformance: build .venv/complete
	for mode in bind strict; do \
	  LOCAL_MODAL_VOLUMES=$$mode .venv/bin/pytest tests/python -k local_modal -n auto --dist loadfile || exit 1; done

# Writes the table of the RPCs that Local Modal speaks, with the tests that ask for them.
coverage-table: export LOCAL_MODAL_RPCS := $(CURDIR)/target/rpcs.jsonl
coverage-table: build .venv/complete
	rm -f $(LOCAL_MODAL_RPCS)
	.venv/bin/pytest tests/python -n auto --dist loadfile --deselect tests/python/test_local_modal_coverage.py::test_coverage_table_is_current \
		--deselect tests/python/test_local_modal_features.py::test_coverage_table_has_all_rows
	cd tests/python && ../../.venv/bin/python coverage_table.py

# Runs 2,000 generated DAG files, plugins and commands beside a canary, on each database. Takes hours. To repeat a run:
# make generated GENERATED="--database sqlite --cases 200 --seed 7"
generated: build .venv/complete
	cd tests/python && PYTHONPATH=$(CURDIR)/modal_functions ../../.venv/bin/python -u -m generated $(GENERATED)

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
