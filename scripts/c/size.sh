#!/usr/bin/env bash
# What the library adds to an app: the C example linked with a static library made for size (profile `size`, without the readers
# that devices do not need), what nobody calls left out, stripped; beside the same program without the library.
#
#   scripts/c/size.sh [TARGET...]     by default that of this machine, and aarch64-unknown-linux-gnu, for phones
#
# aarch64-unknown-linux-gnu wants Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross, and `rustup target add`; without them it
# is passed over.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target} here=$(rustc --version --verbose | sed -n 's/^host: //p')
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
[ $# -gt 0 ] || set -- "$here" aarch64-unknown-linux-gnu
out=$target/c
mkdir -p "$out"
for triple in "$@"; do
  compiler=${CC:-cc} built=$target/size elsewhere=()
  if [ "$triple" != "$here" ]; then
    compiler=${triple/unknown-/}-gcc built=$target/$triple/size elsewhere=(--target "$triple")
    command -v "$compiler" >/dev/null || { echo "skipped: $compiler is missing" >&2; continue; }
    [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ] ||
      { echo "skipped: no standard library: rustup target add $triple" >&2; continue; }
  fi
  cargo build --locked --profile size -p openelm-c --no-default-features "${elsewhere[@]}"
  link=("$compiler" -std=c11 -Os -Icrates/c/include -Wl,--gc-sections -s)
  "${link[@]}" -o "$out/story-$triple" crates/c/examples/story.c "$built/libopenelm_c.a" -lpthread -ldl -lm
  echo 'int main(void) { return 0; }' | "${link[@]}" -x c -o "$out/nothing-$triple" -
  echo "$triple: $(($(wc -c <"$out/story-$triple") - $(wc -c <"$out/nothing-$triple"))) bytes"
done
