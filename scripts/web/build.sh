#!/usr/bin/env bash
# Makes what the npm package in bindings/web lacks: the modules of WebAssembly, with relaxed SIMD and without, and their
# JavaScript, in bindings/web/wasm.
#
# Threads ask for a standard library that was compiled for them. Debian's compiler for the web (rustc-web, rust-web-src) brings
# the source of its own along; it is installed with apt-get where it is missing, or taken from the folder RUST_WEB, into which
# the packages were unpacked.
#
#   scripts/web/build.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/web
package=$PWD/bindings/web/wasm
root=${RUST_WEB:-}
host=$(rustc --version --verbose | sed -n 's/^host: //p')
LEAST=95

minor() { "$root/usr/bin/rustc" --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\).*/\1/p'; }
export LD_LIBRARY_PATH=$root/usr/lib:$root/usr/lib/x86_64-linux-gnu
if [ -z "$root" ] && { [ "$(minor || true)" = "" ] || [ "$(minor)" -lt $LEAST ] || [ ! -d /usr/lib/rustlib/src/rust/library ]; }; then
  unset LD_LIBRARY_PATH
  { apt-get update -q && apt-get install -qy --no-install-recommends rustc-web rust-web-src; } >&2 || true
fi
found=$(minor || true)
[ -n "$found" ] && [ "$found" -ge $LEAST ] && [ -d "$root/usr/lib/rustlib/src/rust/library" ] || {
  echo "there is no compiler from 1.$LEAST on with the source of its standard library (Debian's rustc-web and rust-web-src)" >&2
  exit 3
}
# An empty name in the path would be the current folder.
[ -n "$root" ] || unset LD_LIBRARY_PATH

env -u LD_LIBRARY_PATH CARGO_TARGET_DIR="$target/bindgen" \
  cargo build --quiet --locked --release --manifest-path scripts/web/bindgen/Cargo.toml

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
    PATH=$PATH:$(rustc --print sysroot)/lib/rustlib/$host/bin CARGO_TARGET_DIR=$target RUSTC=$root/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
      cargo build --locked --release --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort \
      -Zprofile-rustflags --config "profile.release.package.openelm-kernels.rustflags=[$features]"
  )
  env -u LD_LIBRARY_PATH "$target/bindgen/release/openelm-web-bindgen" \
    "$target/wasm32-unknown-unknown/release/openelm_web.wasm" "$package" $name
  file=$package/${name}_bg.wasm
  echo "$name: $(wc -c <"$file") bytes, $(gzip -9c "$file" | wc -c) with gzip -9"
done
