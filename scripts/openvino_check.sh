#!/usr/bin/env bash
# OpenVINO GenAI in an environment of its own, and exported GGUF files in it, compared with Transformers:
#
#     scripts/openvino_check.sh [FOLDER]        FOLDER of the environment; .venv-openvino if it is not named
#
# PYTHON is an interpreter with the package and its tests (the extra `dev`). A hundred megabytes are downloaded once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.venv-openvino}")
python=${PYTHON:-.venv/bin/python}
if ! [ -x "$folder/bin/python" ]; then
	python3 -m venv "$folder"
	"$folder/bin/python" -m pip --disable-pip-version-check install --quiet openvino-genai==2026.4.1
fi
OPENVINO_PYTHON="$folder/bin/python" "$python" -m pytest -m openvino -s tests/plugins/exporters/test_openvino.py
