#!/usr/bin/env bash
# Build source archive and wheel, install the wheel into an empty environment, and use it away from the repository:
# the quickstart, then the tests of the example plugin, installed as a third party's would be.
#
#   scripts/check_wheel.sh          the quickstart's smoke run: sees that everything works
#   scripts/check_wheel.sh --full   the whole quickstart, about five minutes on two cores
#
# PYTHON is an interpreter that has the package `build` (the extra `dev`); packages come from where pip is set to.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
smoke=--smoke
[ "${1:-}" = --full ] && smoke=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

"$python" -m build --outdir "$work/dist" "$repository" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(ls "$work"/dist/edgerazor-*.whl)
echo "built $(basename "$wheel"), $(du -k "$wheel" | cut -f1) kB"

"$python" -m venv "$work/environment"
bin=$work/environment/bin
cp -r "$repository/examples/acme-edgerazor" "$work/acme"
"$bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$repository/constraints.txt" \
    "$wheel[report,gguf,onnx]" "$work/acme[test]"

cd "$work"
"$bin/python" - <<'END'
import sys
import edgerazor
assert edgerazor.__file__.startswith(sys.prefix), edgerazor.__file__
print("edgerazor", edgerazor.__version__, "from the wheel")
END
"$bin/edgerazor" quickstart --output report $smoke
test -s report/report.html
"$bin/edgerazor" plugins
cd "$work/acme"
"$bin/python" -m pytest -q -p no:cacheprovider
echo "the wheel works without the repository"
