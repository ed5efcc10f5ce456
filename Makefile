# Each environment is made once, from pyproject.toml, and reused until that changes.
PYTHON ?= python3
DTYPE ?= float32
OUT ?= results/sweep-$(DTYPE)
ARGS ?=
MINUTES ?= 20
SECONDS ?= 120

RUN := .venv/bin/python
DEV := .venv-dev/bin/python

.PHONY: help sweep bench soak fuzz test test-slow test-lowest conformance perf-analyzer examples image deploy-check ray-check cluster-check check stubs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --editable '.[measure]'
	touch $@

.venv-dev/installed: pyproject.toml
	$(PYTHON) -m venv .venv-dev
	$(DEV) -m pip install --quiet --editable '.[dev]'
	touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) -c "import re, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; e = p['optional-dependencies']; del e['cuda'], e['dev'], e['ray']; print(*sorted(re.sub(r'>=([^,]+).*', r'==\1', d) for d in sum(e.values(), p['dependencies']) if '>=' in d), sep='\n')" > .venv-lowest/lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/lowest.txt --editable '.[dev]'
	touch $@

.venv-ray/installed: pyproject.toml
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --editable '.[dev,ray]'
	touch $@

.venv-deploy/installed: deploy/requirements.txt
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/python -m pip install --quiet --requirement deploy/requirements.txt
	touch $@

sweep: .venv/installed  ## the batch-size experiment (DTYPE=float64, OUT=dir, ARGS='...')
	$(RUN) -m client sweep --dtype $(DTYPE) --out $(OUT) $(ARGS)

bench: .venv/installed  ## compare with its limits and other servers (ARGS=--quick: 5 minutes, no others)
	$(RUN) -m client side-by-side $(ARGS)

soak: .venv-dev/installed  ## test its promises in long runs (MINUTES=20, ARGS='--only kills,swaps')
	$(DEV) -m soak --seconds $$(($(MINUTES) * 60)) $(ARGS)

fuzz: .venv-dev/installed  ## damaged messages, frames, files and random sequences (SECONDS=120)
	$(DEV) -m soak --seconds $(SECONDS) --only codec,rpc,frames,transport,headers,files,sequences --out results/fuzz $(ARGS)

# Of the hundreds of processes that tests start, each would compile all modules again.
test test-slow test-lowest: export PYTHONDONTWRITEBYTECODE =
# Nor do their small matrices need threads, which spin while a process starts.
test test-slow test-lowest: export OPENBLAS_NUM_THREADS = 1

test: .venv-dev/installed  ## tests of everything, some minutes (ARGS='-k name')
	$(DEV) -m pytest -n logical --dist worksteal $(ARGS)

test-slow: .venv-dev/installed .venv-deploy/installed  ## tests that take longer: every page's commands, new environments; before a release
	$(DEV) -m pytest -n logical --dist worksteal -m slow $(ARGS)

test-lowest: .venv-lowest/installed  ## all tests with the oldest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -n logical --dist worksteal $(ARGS)

conformance: .venv-dev/installed  ## h2spec and grpc-go's interoperability programs against transport/ (with Go)
	$(DEV) tests/conformance_tools.py
	$(DEV) -m pytest tests/transport/test_conformance.py $(ARGS)

perf-analyzer: .venv-dev/installed  ## Triton's load generator, below .bench/, for the tests that run it
	$(DEV) -c "from measure.side_by_side.perf_analyzer import PerfAnalyzer; PerfAnalyzer()"

examples: .venv-dev/installed  ## build and run the clients in other languages (ARGS='--only Go')
	$(DEV) -m examples.run $(ARGS)

image: .venv-deploy/installed  ## an OCI image of the server and its SBOM, below .image/ (with umoci, mmdebstrap)
	.venv-deploy/bin/python -m deploy.image.build $(ARGS)

deploy-check: .venv-dev/installed .venv-deploy/installed  ## build and run the image, check the files of deploy/
	$(DEV) tests/kubernetes_tools.py
	$(DEV) -m pytest tests/deploy/test_image.py tests/deploy/test_kubernetes.py -m 'slow or not slow' -k 'not second_build' -o faulthandler_timeout=600 $(ARGS)

cluster-check: .venv-dev/installed  ## the files of deploy/kubernetes in a cluster without nodes (with Go; builds it for 45 minutes, once)
	$(DEV) tests/cluster_programs.py
	$(DEV) -m pytest tests/deploy/test_cluster.py -m slow -o faulthandler_timeout=600 $(ARGS)

ray-check: .venv-ray/installed  ## servers that Ray places on a cluster of this machine: updated, killed, scaled
	.venv-ray/bin/python -m pytest tests/deploy/test_ray.py -m slow $(ARGS)

check: .venv-dev/installed  ## style, types, import rules, generated stubs up to date
	$(DEV) -m ruff check .
	$(DEV) -m ruff format --check .
	$(DEV) -m mypy
	PYTHONPATH=. .venv-dev/bin/lint-imports
	$(DEV) protos/generate.py --check
	$(DEV) docs/promises.py --check

stubs: .venv-dev/installed  ## generate the stubs again from the .proto files
	$(DEV) protos/generate.py

clean:  ## remove what the other targets made
	rm -rf .venv .venv-dev .venv-lowest .venv-deploy .venv-ray .bench .examples .image .cluster results
	rm -rf examples/go/inference examples/java/target examples/node/dist examples/node/generated examples/node/node_modules
