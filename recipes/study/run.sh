#!/usr/bin/env bash
# All runs of the study, one after the other; started again, it goes on where it stopped.
# Wanted in the current folder: corpora/books/*.md, corpora/held-out/*.md, runs/study.model (see docs/studies).
set -euo pipefail
recipes=$(cd "$(dirname "$0")" && pwd)
openelm=${OPENELM:-openelm}
for seed in 1 2 3; do
  for run in small-layerwise small-uniform medium-layerwise medium-uniform; do
    "$openelm" pretrain "$recipes/$run.toml" --plain --set "train.seed=$seed" --set "output=runs/study/$run-$seed"
  done
done
