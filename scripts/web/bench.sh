#!/usr/bin/env bash
# Rates in headless Chromium beside @wllama/wllama, llama.cpp in a browser, in turns on the same files: the built-in model and a random
# one of OpenELM-270M's shape, both in Q4_0. Wants the modules built (build.sh) and an idle machine.
#
#   scripts/web/bench.sh [THREADS [ROUNDS [PROMPT TOKENS [TOKENS]]]]
#
# OPENELM is the command that makes the files; by default it is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=${1:-2} rounds=${2:-3} prompt=${3:-128} tokens=${4:-32}
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/web-bench
mkdir -p "$work"
openelm() { if [ -n "${OPENELM:-}" ]; then "$OPENELM" "$@"; else cargo run --locked --release --quiet -- "$@"; fi; }
[ -d "$work/node_modules/@wllama" ] ||
  (cd "$work" && npm install --silent --no-audit --no-fund playwright-core@1 @wllama/wllama@3)
[ -e "$work/story-q4_0.gguf" ] || openelm convert builtin "$work/story-q4_0.gguf" --to gguf --quant q4_0 --no-compare >/dev/null
if [ ! -e "$work/random-270m-q4_0.gguf" ]; then
  # The benchmark writes the random model for its peer; this one keeps it and says nothing, which is then an error.
  cat >"$work/keep.sh" <<'KEEP'
#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -m ] && cp "$2" "$KEEP.new" && mv "$KEEP.new" "$KEEP"; shift; done
KEEP
  chmod +x "$work/keep.sh"
  KEEP=$work/random-270m-q4_0.gguf openelm bench --config openelm-270m --quant q4_0 --rounds 1 --prompts 32 --tokens 1 \
    --threads 1 --vs "$work/keep.sh" >/dev/null 2>&1 || true
  [ -e "$work/random-270m-q4_0.gguf" ] || { echo "the random model could not be made" >&2; exit 1; }
fi
node scripts/web/bench.mjs "$work" "$threads" "$rounds" "$prompt" "$tokens" "$work/story-q4_0.gguf" "$work/random-270m-q4_0.gguf"
