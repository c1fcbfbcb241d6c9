#!/usr/bin/env bash
# Runs the built-in model elsewhere than on the processor of this machine: as WebAssembly under Node, with and without its
# SIMD, and on an emulated 64-bit ARM processor. In floats and in integers, the greedy tokens and the bits of the logits must
# be those of this machine.
#
# Installs what is missing with apt-get where it may. Where rustup has the targets wasm32-unknown-unknown and
# aarch64-unknown-linux-gnu, their standard libraries are used; otherwise Debian's compiler compiles that too
# (scripts/later-rustc.sh).
#
#   scripts/wasm/test.sh [MODEL FOLDER]
set -euo pipefail
cd "$(dirname "$0")"
model=$(realpath "${1:-../../models/storyteller}")
target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/runner
export CARGO_TARGET_DIR=$target CARGO_PROFILE_RELEASE_DEBUG=false
mkdir -p "$target"
host=$(rustc --version --verbose | sed -n 's/^host: //p')
passed=0 failed=0 skipped=0

# wanted COMMAND PACKAGE...: has the command, or gets it.
wanted() {
  local command=$1
  shift
  command -v "$command" >/dev/null || apt-get install -qy --no-install-recommends "$@" >&2 || true
  command -v "$command" >/dev/null || { echo "skipped: $command is missing and $* cannot be installed" >&2; return 1; }
}

has_std() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# build TARGET FLAGS ARGUMENTS...: with rustup's standard library or Debian's compiler.
build() {
  local triple=$1 flags=$2
  shift 2
  local command=(cargo build --release --locked --manifest-path runner/Cargo.toml --target "$triple" "$@")
  if has_std "$triple"; then
    RUSTFLAGS=$flags "${command[@]}"
  else
    # Debian's compiler brings no linker for WebAssembly; rustup's comes last, behind one of the system.
    PATH=$PATH:$(rustc --print sysroot)/lib/rustlib/$host/bin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags \
      "${command[@]}" -Zbuild-std=std,panic_abort
  fi
}

has_compiler() {
  has_std "$1" && return
  (cd ../.. && . scripts/later-rustc.sh) ||
    { echo "skipped: there is no standard library for $1, and rustc-web and rust-web-src cannot be installed" >&2; return 1; }
}

# compare NAME: the report of NAME with this machine's.
compare() {
  if diff <(grep -v ^threads "$target/here.txt") <(grep -v ^threads "$target/$1.txt") >&2; then
    echo "$1: the same tokens and logits"
    passed=$((passed + 1))
  else
    echo "$1: differs from this machine" >&2
    failed=$((failed + 1))
  fi
}

cargo build --release --locked --manifest-path runner/Cargo.toml --bin openelm-runner
"$target/release/openelm-runner" "$model" >"$target/here.txt"

if wanted node nodejs && has_compiler wasm32-unknown-unknown; then
  for simd in + -; do
    name=wasm$([ $simd = + ] && echo -simd || true)
    build wasm32-unknown-unknown "-Ctarget-feature=${simd}simd128" --lib
    module=$target/wasm32-unknown-unknown/release/openelm_runner.wasm
    echo "$name: $(wc -c <"$module") bytes, $(gzip -9c "$module" | wc -c) with gzip -9"
    node run.mjs "$module" "$model" >"$target/$name.txt"
    compare "$name"
  done
else
  skipped=$((skipped + 2))
fi

if wanted qemu-aarch64 qemu-user && wanted aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross &&
  has_compiler aarch64-unknown-linux-gnu; then
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  build aarch64-unknown-linux-gnu "" --bin openelm-runner
  qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu \
    "$target/aarch64-unknown-linux-gnu/release/openelm-runner" "$model" >"$target/aarch64.txt"
  compare aarch64
else
  skipped=$((skipped + 1))
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
