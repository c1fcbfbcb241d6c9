#!/usr/bin/env bash
# The runs of one size (mini, small or medium), one after the other; started again, it goes on where it stopped.
# Wanted in the current folder: corpora/books/*.md, corpora/held-out/*.md, runs/study.model (see docs/studies).
set -euo pipefail
recipes=$(cd "$(dirname "$0")" && pwd)
for seed in 1 2 3; do
  for shape in layerwise uniform; do
    "${OPENELM:-openelm}" pretrain "$recipes/$1-$shape.toml" --plain ${THREADS:+--threads "$THREADS"} \
      --set "train.seed=$seed" --set "output=runs/study/$1-$shape-$seed"
  done
done
