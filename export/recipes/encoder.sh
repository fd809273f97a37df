#!/usr/bin/env bash
# The shipped encoder from recordings to weights, card and figures: about an hour on one CPU core.
# Recordings: python -m export.datasets fetch mitdb svdb vfdb nstdb ludb, and cinc2017, ptbxl (see python -m export.datasets -h).
set -euo pipefail
out="${1:-$HOME/.cache/anyecg/encoder}"
export OMP_NUM_THREADS=1
train() { python -m export.encoder.train --out "$out/$1" "${@:2}"; }
train shipped --steps 3000 --seed 1
python -m export.onnx --checkpoint "$out/shipped/checkpoint.pt"
python -m export.quantize
# patient-wise folds over vfdb, the paced records and LUDB: from weights that have seen none of them
train base --steps 2000 --seed 3 --hold-out 0 1 2 3 4
for fold in 0 1 2 3 4; do
  train "fold$fold" --steps 900 --seed 4 --peak-lr 1.5e-3 --hold-out "$fold" --start "$out/base/checkpoint.pt"
done
python -m export.evaluate
