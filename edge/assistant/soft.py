"""Soft tokens: what the encoder sees in a clip, as rows of a language model's embedding space.

A clip of present leads becomes one row per encoder token (4 Hz) between a first and a last row; absent leads make
none. A frame is the encoder's token with its own scores of the same quarter of a second; nothing of the rhythm
engine is in it. Time is explicit: every row carries a learned code of the tenth of a second at which the R-peak
score is highest within it (the first row 0.0, the last the length of the clip).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, TOKEN_DIM, TOKEN_FS_HZ
from edge.encoder.session import Encoder, Outputs, open_small
from edge.errors import AnyecgError, BadInputError

LABELS = ("PVC", "SVPB", "LBBB", "RBBB", "paced", "AF", "VT", "bigeminy", "pause", "noise")
"""What can be localised; the order is part of a projector."""
PEAKS = BEAT_FS_HZ // TOKEN_FS_HZ
FRAME = TOKEN_DIM + PEAKS + len(BEAT_CLASSES) + len(MORPHOLOGIES) + len(RHYTHMS) + 1
"""Width of a frame: token, R-peak scores, classes and shapes weighted by them, rhythm and quality of the second."""
MAX_S = 60.0
"""Longest clip that is read in one piece."""
MIN_S = 1.0

CARD = Path(__file__).parent.parent / "models" / "projector.json"


def frames(encoder: Encoder, ecg: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the frames [T, FRAME] of a clip [leads, n] in mV at 128 Hz, NaN = missing; T = ceil(4 · n / 128).

    Raises:
        BadInputError: shorter than a second, longer than `MAX_S`, or without any sample.
    """
    length_s = ecg.shape[1] / MODEL_FS_HZ
    if not MIN_S <= length_s <= MAX_S:
        raise BadInputError(f"a clip of {length_s:.1f} s cannot be read in one piece: {MIN_S:g} to {MAX_S:g} s can")
    present = ecg[~np.isnan(ecg).all(axis=1)]
    if not present.size:
        raise BadInputError("nothing was recorded in this clip")
    seconds = -(-ecg.shape[1] // MODEL_FS_HZ)
    padded = np.full((1, present.shape[0], seconds * MODEL_FS_HZ), np.nan, dtype=np.float32)
    padded[0, :, : ecg.shape[1]] = present
    tokens = -(-ecg.shape[1] * TOKEN_FS_HZ // MODEL_FS_HZ)
    return collect(encoder.run(padded))[:tokens]


def collect(outputs: Outputs) -> NDArray[np.float32]:
    """Return the frames of the first window of `outputs`, [tokens, FRAME]."""
    tokens = outputs.tokens[0]
    peak = outputs.r_peak[0].reshape(-1, PEAKS)

    def weighted(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        by_token = scores[0].reshape(peak.shape[0], PEAKS, -1)
        return np.asarray((by_token * peak[:, :, None]).max(axis=1))

    def held(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.repeat(scores[0].reshape(-1, scores[0].size // (tokens.shape[0] // TOKEN_FS_HZ)), TOKEN_FS_HZ, axis=0)

    parts = [tokens, peak, weighted(outputs.beat), weighted(outputs.morphology)]
    return np.concatenate([*parts, held(outputs.rhythm), held(outputs.quality)], axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ProjectorCard:
    """What is known about projector and adapter, which belong together, to one encoder and to one base model."""

    path: Path
    facts: dict[str, Any]

    @staticmethod
    def load(path: Path | None = None) -> ProjectorCard:
        """Read a card; default: the shipped one.

        Raises:
            AnyecgError: there is none, or it is no such card.
        """
        path = path or CARD
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AnyecgError(f"no projector for the assistant: {path} cannot be read ({error})") from None
        needed = ("checkpoint", "encoder", "base_sha256", "file", "sha256", "adapter", "adapter_sha256")
        if not isinstance(facts, dict) or (missing := [key for key in needed if not isinstance(facts.get(key), str)]):
            raise AnyecgError(f"{path} is no card of a projector: it lacks {', '.join(missing or needed)}")
        return ProjectorCard(path, facts)

    @property
    def encoder(self) -> str:
        return str(self.facts["encoder"])

    @property
    def checkpoint(self) -> str:
        return str(self.facts["checkpoint"])

    def verified(self, which: str) -> Path:
        """Return the path of `file` or `adapter` after comparing its hash. Raises `AnyecgError` if it differs."""
        path = self.path.parent / str(self.facts[which])
        wanted = str(self.facts["sha256" if which == "file" else f"{which}_sha256"])
        try:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise AnyecgError(f"cannot read {path}: {error.strerror}") from None
        if found != wanted:
            raise AnyecgError(f"{path} is not the file its card names (sha256 {found[:12]}…, not {wanted[:12]}…)")
        return path

    def accept(self, encoder: str) -> None:
        """Refuse an encoder that this projector was not trained on. Raises `BadInputError`."""
        if encoder != self.encoder:
            raise BadInputError(
                f"the projector was trained on encoder {self.encoder} and cannot read the tokens of {encoder}: "
                f"use that encoder, or train a projector for this one (python -m export.assistant.train)"
            )


class Projector:
    """The projector as loaded, one thread, safe to call from several threads."""

    def __init__(self, card: ProjectorCard, encoder: str) -> None:
        """Load the verified weights for the encoder with checkpoint id `encoder`.

        Raises:
            BadInputError: it was trained on another encoder.
            AnyecgError: the file is missing or not the one of the card.
        """
        card.accept(encoder)
        self.card = card
        self._session = open_small(card.verified("file").read_bytes())
        self.width = int(self._session.get_outputs()[0].shape[-1])

    def __call__(self, found: NDArray[np.float32], length_s: float) -> NDArray[np.float32]:
        """Return the soft tokens [T + 2, width] of frames [T, FRAME]."""
        soft: NDArray[np.float32] = self._run(["soft"], found, length_s)[0]
        return soft

    def heads(self, found: NDArray[np.float32], length_s: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what the projector's own heads say, for evaluation: [T + 2, labels, 3] and times in tenths of a s."""
        flags, when = self._run(["flags", "when"], found, length_s)
        return flags, when

    def _run(self, names: list[str], found: NDArray[np.float32], length_s: float) -> Any:
        inputs = {"frames": found, "length_ds": np.array([round(length_s * 10)], dtype=np.int64)}
        return self._session.run(names, inputs)
