#!/usr/bin/env bash
# Builds the wheel, installs it into a new environment and runs its tests there. Needs Rust, Python from 3.9 on and PyPI.
#
#   scripts/python/test.sh [OUTPUT FOLDER]
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "${1:-${CARGO_TARGET_DIR:-target}/python}")
rm -rf "$out/env" "$out/wheels"
python3 -m venv "$out/env"
"$out/env/bin/pip" install --quiet 'maturin>=1.9,<2' pytest numpy mypy
CARGO_TARGET_DIR=$out/build "$out/env/bin/maturin" build --release --manifest-path crates/python/Cargo.toml --out "$out/wheels"
"$out/env/bin/pip" install --quiet "$out"/wheels/*.whl
"$out/env/bin/python" -m pytest -q -s crates/python/tests
# The stubs say what there is.
"$out/env/bin/python" -m mypy.stubtest --ignore-missing-stub openelm._openelm
ls -l "$out/wheels"
