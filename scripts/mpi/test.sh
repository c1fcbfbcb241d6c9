#!/usr/bin/env bash
# Trains a small model as an MPI job of two processes on this machine and compares with one process, to the bit: whole and
# shared-out moments, a rank that is killed, going on with another number of ranks, a request to stop at one rank, an error of
# one rank before the run begins.
#
# Wanted (Debian): openmpi-bin libopenmpi-dev libclang-dev.
#
#   scripts/mpi/test.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in mpirun mpicc; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; install openmpi-bin and libopenmpi-dev" >&2; exit 1; }
done
cargo build --release --workspace --features openelm-cli/mpi
openelm="${CARGO_TARGET_DIR:-target}/release/openelm"
mpi=(mpirun --oversubscribe)
if [ "$(id -u)" = 0 ]; then mpi+=(--allow-run-as-root); fi

folder="$(mktemp -d)"
trap 'status=$?; [ $status = 0 ] || tail -n 5 "$folder"/*.log >&2; rm -rf "$folder"; exit $status' EXIT
for book in 0 1 2; do
  for day in $(seq 60); do printf 'In book %s the fox met %s geese on day %s.\n\n' "$book" $((day * 7 % 11)) "$day"; done \
    >"$folder/book$book.txt"
done
cat >"$folder/recipe.toml" <<RECIPE
output = "$folder/out"
model = { layers = 4, dim = 256, head_dim = 32, gqa_groups = 2, ffn_divisor = 32 }
tokenizer = { path = "tests/golden/tokenizer_small/tokenizer.model" }
data = { sources = [{ path = "$folder/book*.txt" }], shuffle_buffer = 8 }
train = { sequence_length = 32, batch_size = 2, accumulation = 4, shares = 4, steps = 60 }
schedule = { max_lr = 1e-3, warmup_steps = 10 }
checkpoint = { every = 10, keep = 0 }
RECIPE

# Writes its process id into the folder of the run, then becomes the command.
cat >"$folder/rank" <<'RANK'
#!/bin/sh
echo $$ >"$RUN.${OMPI_COMM_WORLD_RANK:-0}.pid"
exec "$@"
RANK
chmod +x "$folder/rank"

# pretrain RANKS OUTPUT [KEY=VALUE]...
pretrain() {
  local ranks="$1" log="$folder/$2.log" sets=(--set "output=$folder/$2") launch=()
  export RUN="$folder/$2"
  shift 2
  for set in "$@"; do sets+=(--set "$set"); done
  if [ "$ranks" -gt 1 ]; then launch=("${mpi[@]}" -n "$ranks" "$folder/rank"); fi
  # `exec` makes it the process that this shell knows. A job that hangs is a failure.
  exec timeout 120 "${launch[@]}" "$openelm" pretrain "$folder/recipe.toml" --threads 1 "${sets[@]}" \
    2>>"$log" >/dev/null
}

# same OUTPUT: its last checkpoint is that of one undisturbed process.
same() {
  for file in model.safetensors optimizer.safetensors; do
    cmp "$folder/one/checkpoints/step-00000060/$file" "$folder/$1/checkpoints/step-00000060/$file"
  done
  echo "ok: $2"
}

# wait_for OUTPUT: until its first checkpoint is there.
wait_for() {
  for _ in $(seq 600); do
    [ -e "$folder/$1/checkpoints/step-00000010/checksums.json" ] && return
    sleep 0.1
  done
  echo "error: no checkpoint in $1" >&2
  exit 1
}

# last_rank OUTPUT: the process of the last of two ranks.
last_rank() { cat "$folder/$1.1.pid"; }

# failed COMMAND...: it ends with an error, by itself.
failed() {
  local status=0
  "$@" || status=$?
  if [ "$status" = 0 ]; then echo "error: $* was no error" >&2; exit 1; fi
  if [ "$status" = 124 ]; then echo "error: $* hangs" >&2; exit 1; fi
}

(pretrain 1 one)
(pretrain 2 two)
same two "two ranks give the bits of one"
(pretrain 2 sharded train.sharding=optimizer)
same sharded "with moments shared out as well"

pretrain 2 killed train.sharding=optimizer &
launcher=$!
wait_for killed
kill -9 "$(last_rank killed)"
failed wait "$launcher"
if [ -e "$folder/killed/checkpoints/step-00000060" ]; then echo "error: the rank was killed too late" >&2; exit 1; fi
echo "ok: a job ends when a rank is killed"
(pretrain 1 killed "train.steps=60")
same killed "one process goes on from there"

pretrain 2 stopped &
launcher=$!
wait_for stopped
kill -TERM "$(last_rank stopped)"
wait "$launcher"
if [ -e "$folder/stopped/checkpoints/step-00000060" ]; then echo "error: the rank was asked too late" >&2; exit 1; fi
echo "ok: all ranks stop when one is asked to"
(pretrain 4 stopped train.sharding=optimizer)
same stopped "four ranks go on from there"

pretrain 3 three &
failed wait $!
grep -q "3 ranks cannot share the 4 micro-batches" "$folder/three.log"
echo "ok: ranks that cannot share the work are told why"

# Rank 1 alone has too little memory; rank 0 waits for it, but not for ever.
one=("$openelm" pretrain "$folder/recipe.toml" --threads 1 --set "output=$folder/unlike")
failed timeout 60 "${mpi[@]}" -n 1 "${one[@]}" : -n 1 "${one[@]}" --set train.batch_size=1000000000 \
  >"$folder/unlike.log" 2>&1
grep -q "error: rank 1: this run takes .* of memory" "$folder/unlike.log"
echo "ok: an error of one rank before the run begins ends all of them"
