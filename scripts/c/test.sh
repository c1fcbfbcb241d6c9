#!/usr/bin/env bash
# Builds the C example and the checks with a C compiler, runs them, and again under valgrind, which must find no leak and no error.
#
#   scripts/c/test.sh [LIBRARY libopenelm_c.a [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target} model=models/storyteller rounds=${2:-1000}
library=${1:-}
if [ -z "$library" ]; then
  cargo build --locked --release -p openelm-c
  library=$target/release/libopenelm_c.a
fi
out=$target/c
mkdir -p "$out"
for source in examples/story tests/checks; do
  ${CC:-cc} -std=c11 -O1 -g -Wall -Wextra -Werror -Icrates/c/include -o "$out/$(basename $source)" "crates/c/$source.c" \
    "$library" -lpthread -ldl -lm
done
# A C++ compiler takes the header too.
if command -v c++ >/dev/null; then
  c++ -std=c++17 -fsyntax-only -Wall -Wextra -Werror -x c++ crates/c/include/openelm.h
fi
"$out/story" "$model" "Once upon a time"
"$out/checks" "$model" "$rounds"
if command -v valgrind >/dev/null; then
  check=(valgrind --quiet --leak-check=full --show-leak-kinds=definite,possible --errors-for-leak-kinds=definite,possible
    --error-exitcode=9)
  "${check[@]}" "$out/story" "$model" "Once upon a time" >/dev/null
  "${check[@]}" "$out/checks" "$model" 3
  echo "valgrind: no leak, no error"
else
  echo "skipped: valgrind is not here"
fi
