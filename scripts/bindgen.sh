#!/usr/bin/env bash
# Generates the Swift or Kotlin of the shared surface from a library with its metadata:
#
#   scripts/bindgen.sh swift|kotlin LIBRARY OUTPUT_FOLDER
#
# LIBRARY is a release build of openelm-ffi with the feature `uniffi`, not stripped.
set -euo pipefail
cd "$(dirname "$0")/.."
language=$1 library=$(realpath "$2") out=$(realpath -m "$3")
tools=$(realpath -m "${CARGO_TARGET_DIR:-target}/tools")
version=$(sed -n '/^name = "uniffi"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
[ -x "$tools/bin/uniffi-bindgen" ] ||
  CARGO_TARGET_DIR="$tools/build" cargo install --quiet --locked --root "$tools" --features cli "uniffi@$version"
"$tools/bin/uniffi-bindgen" generate --library "$library" --language "$language" --no-format --out-dir "$out"
