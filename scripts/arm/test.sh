#!/usr/bin/env bash
# Runs the tests of the kernels on an emulated 64-bit ARM processor: the NEON paths, against the plain code.
#
# Wanted (Debian): qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross. Where rustup has the target aarch64-unknown-linux-gnu
# installed, its own standard library is used, otherwise that of Debian's compiler (scripts/later-rustc.sh).
#
#   scripts/arm/test.sh [arguments of the test binaries]
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; install qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross" >&2; exit 1; }
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# All features of the emulated processor; the libraries are those of the cross compiler.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

build_std=()
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-gnu" ]; then
  # The standard library is compiled along.
  . scripts/later-rustc.sh
  build_std=(-Zbuild-std=std,panic_unwind,test)
fi
cargo test --release --package openelm-kernels --lib --tests --target aarch64-unknown-linux-gnu "${build_std[@]}" -- "$@"
