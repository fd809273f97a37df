#!/usr/bin/env bash
# The assistant that looks, from recordings and the shipped encoder to projector, adapter, card and figures.
# Resumable: run it again and it goes on from its last checkpoint. About 14,000 short samples an hour on two cores.
#   assistant.sh [FOLDER]                           the shipped model
#   ABLATION=--no-lora assistant.sh FOLDER2         or --no-time, --no-curriculum
# QUESTIONS names a file of localisation questions (docs/assistant.md).
set -euo pipefail
out="${1:-$HOME/.cache/anyecg/assistant/run}"
threads="${THREADS:-2}"
export OMP_WAIT_POLICY=PASSIVE
# shellcheck disable=SC2086
python -m export.assistant.train --out "$out" --threads "$threads" ${STEPS:+--steps $STEPS} ${CLIPS:+--clips $CLIPS} ${ABLATION:-}
python -m export.gguf --checkpoint "$out/checkpoint.pt"
python -m export.assistant.evaluate ${QUESTIONS:+--questions "$QUESTIONS"} --reports --compare
