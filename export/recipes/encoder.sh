#!/usr/bin/env bash
# The shipped encoder from recordings to weights, card and figures: about 40 minutes on one CPU core.
# Recordings: python -m export.datasets fetch mitdb svdb vfdb nstdb, and cinc2017 (see python -m export.datasets -h).
set -euo pipefail
out="${1:-$HOME/.cache/anyecg/encoder}"
export OMP_NUM_THREADS=1
python -m export.encoder.train --out "$out" --steps 4300 --seed 1
python -m export.onnx --checkpoint "$out/checkpoint.pt"
python -m export.evaluate
