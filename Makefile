# The same commands for people and CI. Nothing but Python 3.11+, git, make and a C++ compiler is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# onnxruntime and onnxruntime-gpu write the same files: one or the other
EP := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
# llama.cpp is compiled on the first install; its vision part and TLS are not used
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF
# Compiled by GCC before 12.4 and 13.3 (PR target/114098) its AMX kernels end the first token in a segmentation fault
# (ggml-org/llama.cpp issue 20824): they are left out where this compiler would use them
AMX := $(shell $(CXX) -march=native -dM -E -x c++ /dev/null 2>/dev/null | grep -q __AMX_TILE__ && echo amx)
export CFLAGS += $(AMX:amx=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
export CXXFLAGS += $(AMX:amx=-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export OMP_WAIT_POLICY ?= PASSIVE
# ONNX Runtime reports to its maker unless told not to; nothing leaves this machine
export ORT_DISABLE_TELEMETRY := 1

.PHONY: setup demo test test-export check audit wheel docs system bench clean

setup: $(VENV)/.run

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 setup"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	@echo "Installing (compiles llama.cpp on the first run, about 5 minutes on 2 cores) ..."
	$(BIN)/pip install -q -e '.[$(EP)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install -q -e '.[$(EP),dev]'
	@touch $@

$(VENV)/.export: $(VENV)/.dev
	$(BIN)/pip install -q -e '.[$(EP),dev,export]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/anyecg demo

test: $(VENV)/.dev
	$(BIN)/pytest -m 'not export'

test-export: $(VENV)/.export
	$(BIN)/pytest -m export

check: $(VENV)/.export
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m edge.cli.docs --check
	$(BIN)/pip check
	$(BIN)/python .ci/audit.py

# asks PyPI's advisory service, which `make check` does not need
audit: $(VENV)/.export
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install -q pip-audit
	$(BIN)/pip freeze --exclude-editable | $(VENV)-audit/bin/pip-audit --disable-pip --no-deps -r /dev/stdin

wheel: $(VENV)/.run
	$(BIN)/pip wheel -q --no-deps -w dist .

docs: $(VENV)/.dev
	$(BIN)/python -m edge.cli.docs

system:
	@if [ "$$(id -u)" != 0 ]; then echo "make system needs root: sudo make system"; exit 1; fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium dbus e2fsprogs mosquitto poppler-utils strace systemd

bench: $(VENV)/.dev
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) $(VENV)-audit build dist
