#!/usr/bin/env bash
# The assistant that looks, from recordings and the shipped encoder to projector, adapter, card and figures.
# Resumable: run it again and it goes on from its last checkpoint. About an hour on one core with AMX, three without.
#   assistant.sh [FOLDER]                           the shipped model
#   ABLATION=--no-lora HEADS=FOLDER assistant.sh FOLDER2
#                                                   or "--time codes", "--time none", --no-curriculum
# QUESTIONS names a file of localisation questions (docs/assistant.md).
set -euo pipefail
out="${1:-$HOME/.cache/anyecg/assistant/run}"
threads="${THREADS:-1}"
export OMP_WAIT_POLICY=PASSIVE
# shellcheck disable=SC2086
python -m export.assistant.reading --out "${HEADS:-$out}" --threads "$threads" ${CLIPS:+--clips $CLIPS}
# shellcheck disable=SC2086
python -m export.assistant.train --out "$out" --heads "${HEADS:-$out}" --threads "$threads" \
    ${STEPS:+--steps $STEPS} ${CLIPS:+--clips $CLIPS} ${ABLATION:-}
python -m export.gguf --checkpoint "$out/checkpoint.pt"
python -m export.assistant.evaluate ${QUESTIONS:+--questions "$QUESTIONS"} --reports --compare --hours PVC
