#!/usr/bin/env bash
# Makes crates/c/include/openelm.h anew, with cbindgen; --check only says whether it is as it should be.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${CARGO_TARGET_DIR:-target}/tools
command -v cbindgen >/dev/null || [ -x "$tools/bin/cbindgen" ] ||
  CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" cbindgen@0.29.4
PATH=$tools/bin:$PATH
header=crates/c/include/openelm.h
if [ "${1:-}" = --check ]; then
  cbindgen --quiet --config crates/c/cbindgen.toml crates/c | diff "$header" - ||
    { echo "$header is not what crates/c says: run scripts/c/header.sh" >&2; exit 1; }
else
  cbindgen --quiet --config crates/c/cbindgen.toml --output "$header" crates/c
fi
