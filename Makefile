# Everything runs in .venv, which the first target that needs it builds from the project's own files.
# TORCH_INDEX: a package index with CPU builds of torch, for machines that would otherwise fetch CUDA: make TORCH_INDEX=URL test
PYTHON ?= python3
PIP_TORCH = $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
READY = .venv/ready

.PHONY: quickstart test check bench clean

$(READY): pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet -c constraints.txt $(PIP_TORCH) torch
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[torch,dev]'
	touch $(READY)

quickstart: $(READY)
	.venv/bin/outcross quickstart

test: $(READY)
	.venv/bin/python -m pytest -n 2 --dist worksteal

check: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest tests/test_architecture.py

bench: $(READY)
	.venv/bin/python benchmarks/pipeline.py

clean:
	rm -rf .venv quickstart
