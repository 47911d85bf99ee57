#!/usr/bin/env bash
# The oldest versions that pyproject.toml declares, all at once in an environment of their own, and the tests on them:
#
#     scripts/lower_bounds.sh [PYTEST OPTIONS]          the fast tests, or those that the options name
#     KEEP="torch==2.13.0" scripts/lower_bounds.sh      another version of a package, where the oldest is not at hand
#
# Not among them is llama.cpp, which would have to be built, nor what only the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${FOLDER:-.venv-lower}
python3 -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install --quiet uv
printf '%s\n' ${KEEP:-} > "$folder/keep.txt"
"$folder/bin/uv" pip compile --quiet --python "$folder/bin/python" --resolution lowest-direct --overrides "$folder/keep.txt" \
	--extra gguf --extra onnx --extra compressed-tensors --extra report --extra testing pyproject.toml --output-file "$folder/oldest.txt"
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --requirement "$folder/oldest.txt" \
	pytest pytest-xdist "$(grep -i '^triton==' constraints.txt)"
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --no-deps --editable .
grep -v '#' "$folder/oldest.txt" | paste -sd' '
[ $# -gt 0 ] || set -- -m "not (slow or subprocess or llamacpp or genai)"
OMP_NUM_THREADS=1 "$folder/bin/python" -m pytest --numprocesses 2 --dist worksteal "$@"
