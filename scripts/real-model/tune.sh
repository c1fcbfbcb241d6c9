#!/bin/sh
# Tunes SmolLM2-135M-Instruct by QLoRA, LoRA, DoRA and DPO and says what changed: held-out loss, accuracy, answers, time, memory.
#
#   scripts/real-model/tune.sh OPENELM SMOLLM2.gguf DOLLY.jsonl HARMLESS.jsonl.gz [FOLDER] [openelm tune's options]
#
# For the recipes dolly.toml and harmless.toml, whose numbers are those of docs/guides/tuning.md; --set train.steps=20 and the like make
# it shorter. What is there in FOLDER goes on, so that the script may be stopped. Needs GNU time and python3.
set -eu
openelm=$1 model=$2 dolly=$3 harmless=$4 folder=${5:-runs/smollm2}
if [ $# -gt 5 ]; then shift 5; else shift $#; fi
recipes=$(dirname "$0")/../../recipes/tune
mkdir -p "$folder"
[ -e "$folder/bf16" ] || "$openelm" convert "$model" "$folder/bf16" --to hf --dtype bf16 --no-compare

run() {
    name=$1 recipe=$2 base=$3 data=$4
    shift 4
    /usr/bin/time -o "$folder/$name.time" -f '%e s, %M KiB' "$openelm" tune "$recipes/$recipe.toml" --plain --set "output=$folder/$name" \
        --set "model.path=$base" --set "data.sources=[{ path = \"$data\" }]" "$@" 2>"$folder/$name.log"
    echo "== $name: $(tail -n 1 "$folder/$name.time")"
    python3 - "$folder/$name/log.jsonl" <<'PY'
import json, sys
entries = [json.loads(line) for line in open(sys.argv[1])]
for entry in entries:
    if "validation_loss" in entry:
        more = "".join(f", {name} {value:.3f}" for name, value in entry.get("validation_metrics", {}).items())
        print(f"step {entry['step']}: held out {entry['validation_loss']:.4f}{more}")
for entry in entries:
    if "text" in entry:
        print(f"step {entry['step']}: {entry['prompt'].split('### Instruction:')[-1].strip()!r} -> {entry['text'].strip()!r}")
PY
}

run qlora dolly "$model" "$dolly" "$@"
run lora dolly "$folder/bf16" "$dolly" "$@"
run dora dolly "$folder/bf16" "$dolly" --set adapter.kind=dora "$@"
run dpo harmless "$model" "$harmless" "$@"
