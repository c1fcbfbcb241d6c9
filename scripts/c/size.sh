#!/usr/bin/env bash
# What the library adds to an app: the C example linked with a static library made for size (profile `size`, without the readers
# that devices do not need), what nobody calls left out, stripped; beside the same program without the library.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
cargo build --locked --profile size -p openelm-c --no-default-features
out=$target/c
mkdir -p "$out"
link=(${CC:-cc} -std=c11 -Os -Icrates/c/include -Wl,--gc-sections -s)
"${link[@]}" -o "$out/story-small" crates/c/examples/story.c "$target/size/libopenelm_c.a" -lpthread -ldl -lm
echo 'int main(void) { return 0; }' | "${link[@]}" -x c -o "$out/nothing" -
echo "$(($(wc -c <"$out/story-small") - $(wc -c <"$out/nothing"))) bytes"
