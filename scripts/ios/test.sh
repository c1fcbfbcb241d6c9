#!/usr/bin/env bash
# Builds the static library for aarch64-apple-ios without a Mac, and compares the functions in it with those of the generated
# header. With rustup's standard library where it is there; otherwise with that of Debian's compiler (scripts/later-rustc.sh).
#
#   scripts/ios/test.sh [LIBRARY FOR THIS MACHINE, with UniFFI's metadata]
set -euo pipefail
cd "$(dirname "$0")/../.."
triple=aarch64-apple-ios target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export IPHONEOS_DEPLOYMENT_TARGET=16.0
build=(cargo rustc --locked --profile size -p openelm-ffi --no-default-features --features uniffi,jinja --crate-type staticlib
  --target "$triple")
if [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ]; then
  "${build[@]}"
else
  (. scripts/later-rustc.sh && CARGO_TARGET_DIR=$target/ios "${build[@]}" -Zbuild-std=std,panic_unwind)
  target=$target/ios
fi
library=$target/$triple/size/libopenelm_ffi.a
here=${1:-}
if [ -z "$here" ]; then
  cargo rustc --locked --release -p openelm-ffi --features uniffi --crate-type cdylib
  here=${CARGO_TARGET_DIR:-target}/release/libopenelm_ffi.so
fi
scripts/bindgen.sh swift "$here" "$target/swift"
python3 scripts/ios/symbols.py "$library" "$target/swift/OpenELMFFI.h"
echo "$library: $(wc -c <"$library") bytes before an app is linked with it"
