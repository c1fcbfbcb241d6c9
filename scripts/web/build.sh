#!/usr/bin/env bash
# Makes what the npm package in bindings/web lacks: the modules of WebAssembly, with relaxed SIMD and without, and their
# JavaScript, in bindings/web/wasm.
#
# Threads ask for a standard library that was compiled for them: Debian's compiler for the web brings the source of its own along
# (scripts/later-rustc.sh). Ends with 3 where it cannot be had.
#
#   scripts/web/build.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/web
package=$PWD/bindings/web/wasm
host=$(rustc --version --verbose | sed -n 's/^host: //p')

CARGO_TARGET_DIR="$target/bindgen" cargo build --quiet --locked --release --manifest-path scripts/web/bindgen/Cargo.toml
. scripts/later-rustc.sh || exit 3

link="--shared-memory --import-memory --max-memory=4294967296 --export=__wasm_init_tls --export=__tls_size"
link="$link --export=__tls_align --export=__tls_base --export=__heap_base"
rm -rf "$package"
mkdir -p "$package"
export RUSTFLAGS="-Ctarget-feature=+simd128,+atomics"
for argument in $link; do RUSTFLAGS="$RUSTFLAGS -Clink-arg=$argument"; done
for name in openelm openelm-relaxed; do
  # Only the kernels are compiled in two ways: all else is shared.
  features=$([ $name = openelm ] || echo '"-Ctarget-feature=+relaxed-simd"')
  # Debian's compiler brings no linker for WebAssembly; rustup's comes last, behind one of the system.
  (
    cd crates/web
    PATH=$PATH:$(rustc --print sysroot)/lib/rustlib/$host/bin CARGO_TARGET_DIR=$target \
      cargo build --locked --release --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort \
      -Zprofile-rustflags --config "profile.release.package.openelm-kernels.rustflags=[$features]"
  )
  "$target/bindgen/release/openelm-web-bindgen" \
    "$target/wasm32-unknown-unknown/release/openelm_web.wasm" "$package" $name
  file=$package/${name}_bg.wasm
  echo "$name: $(wc -c <"$file") bytes, $(gzip -9c "$file" | wc -c) with gzip -9"
done
