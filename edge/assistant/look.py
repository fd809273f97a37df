"""The model that looks: localise, describe and compare clips of ECG through soft tokens.

What it says is its own reading, marked `source: model` wherever it is shown; spans lie within the clip by
construction. Nothing of the rhythm engine is in its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.assistant.injection import Injection, Part
from edge.assistant.model import LanguageModel, find_model
from edge.assistant.pointing import point
from edge.assistant.prompts import heads, question_text
from edge.assistant.reports import report_grammar
from edge.assistant.soft import CARD, MAX_S, MIN_S, Projector, ProjectorCard, frames
from edge.assistant.wording import NAMES, Span, label_of
from edge.chunk import MISSING
from edge.encoder.contract import MODEL_FS_HZ
from edge.encoder.session import Encoder
from edge.errors import AnyecgError, BadInputError
from edge.signal.prepare import prepare, step

MAX_ECGS = 4
TEXT_TOKENS = 80
ROOM = 420
"""Tokens kept free behind the ECGs for question and answer."""
_LINE_GRAMMAR = 'root ::= " " [A-Za-z0-9] [A-Za-z0-9 ,;.-]{0,160} "\\n"\n'


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip prepared for the encoder: [leads, n] mV at 128 Hz, NaN = missing, 1 to 60 s."""

    ecg: NDArray[np.float32]
    leads: tuple[str, ...] = ()
    """Their names; empty where nobody knows them."""

    @property
    def length_s(self) -> float:
        """Length in seconds, to a tenth."""
        return float(round(self.ecg.shape[1] / MODEL_FS_HZ, 1))

    @staticmethod
    def of_samples(
        samples: NDArray[np.int32], uv_per_lsb: Sequence[float], fs_hz: float, leads: Sequence[str] = ()
    ) -> Clip:
        """Prepare digital samples [leads, n] with `MISSING`, as the gateway prepares what it keeps."""
        size = int(samples.shape[1] / float(step(fs_hz)))
        return Clip(prepare(samples, 0, uv_per_lsb, fs_hz, 0, size), tuple(leads))

    @staticmethod
    def of_signal(signal_mv: NDArray[np.floating], fs_hz: float, leads: Sequence[str] = ()) -> Clip:
        """Prepare millivolts [leads, n] with NaN, rounded to microvolts."""
        signal = np.atleast_2d(signal_mv).astype(np.float64)
        samples = np.where(np.isnan(signal), MISSING, np.rint(np.nan_to_num(signal) * 1000)).astype(np.int32)
        return Clip.of_samples(samples, [1.0] * signal.shape[0], fs_hz, leads)


class Looker:
    """Encoder, projector and language model together; not for several threads at once."""

    def __init__(self, model: LanguageModel, encoder: Encoder, card: ProjectorCard) -> None:
        """Raises `BadInputError` if the projector was trained on another encoder or for another model."""
        self.encoder = encoder
        self.card = card
        self.projector = Projector(card, encoder.card.checkpoint)
        self.injection = Injection(model.llama, model.module)
        if self.projector.width != self.injection.width:
            raise BadInputError(
                f"the projector makes rows of {self.projector.width}, {model.name} takes {self.injection.width}: "
                "it was trained for another language model"
            )
        self.name = f"{model.name} (projector {card.checkpoint})"

    def soft(self, clip: Clip) -> NDArray[np.float32]:
        """Return the soft tokens of a clip. Raises `BadInputError` for one that cannot be read in one piece."""
        return self.projector(frames(self.encoder, clip.ecg, clip.leads), clip.length_s)

    def show(self, clips: Sequence[Clip], soft: Sequence[NDArray[np.float32]] | None = None) -> None:
        """Let the model read one to four ECGs; `soft` replaces their soft tokens (controls).

        Raises:
            BadInputError: too many, or longer together than the context.
        """
        if not 1 <= len(clips) <= MAX_ECGS:
            raise BadInputError(f"{len(clips)} ECGs cannot be compared: 2 to {MAX_ECGS} can")
        rows = [self.soft(clip) for clip in clips] if soft is None else list(soft)
        parts: list[Part] = []
        for head, one in zip(heads(len(clips)), rows, strict=True):
            parts += [head, one]
        self.injection.read(parts, ROOM)

    def spans(self, clip: Clip, label: str, question: str = "", soft: NDArray[np.float32] | None = None) -> list[Span]:
        """Return where `label` is in seconds of the clip, in order; `soft` replaces its soft tokens (controls)."""
        sight = self.projector.see(frames(self.encoder, clip.ecg, clip.leads), clip.length_s)
        self.show([clip], [sight.rows if soft is None else soft])
        asked = question or f"Where is the {NAMES[label]} in this ECG?"
        return point(self.injection, question_text(" ".join(asked.split())), sight.places.tenths.tolist())

    def report(self, clip: Clip) -> str:
        """Return a report under the grammar of reports."""
        sight = self.projector.see(frames(self.encoder, clip.ecg, clip.leads), clip.length_s)
        self.show([clip], [sight.rows])
        grammar = report_grammar(sight.places.rate_bpm, *sight.counts)
        said = self.injection.answer(question_text("Describe this ECG."), grammar, TEXT_TOKENS).strip()
        return said.replace("There are 1 ", "There is 1 ")

    def tell(self, clips: Sequence[Clip], question: str) -> str:
        """Answer a free question about one to four ECGs in one line."""
        self.show(clips)
        return self.injection.answer(question_text(" ".join(question.split())), _LINE_GRAMMAR, TEXT_TOKENS).strip()

    def localize(
        self, signal_mv: NDArray[np.floating], fs_hz: float, leads: Sequence[str], label: str
    ) -> list[tuple[float, float]]:
        """Return the spans of a label in a signal [leads, n] of at most 60 s; `leads` are their names."""
        return self.spans(_cut(signal_mv, fs_hz, leads), label_of(label))

    def describe(self, signal_mv: NDArray[np.floating], fs_hz: float, leads: Sequence[str]) -> str:
        """Return a report of a signal [leads, n] of at most 60 s."""
        return self.report(_cut(signal_mv, fs_hz, leads))


def _cut(signal_mv: NDArray[np.floating], fs_hz: float, leads: Sequence[str]) -> Clip:
    clip = Clip.of_signal(signal_mv, fs_hz, leads)
    if not MIN_S <= clip.ecg.shape[1] / MODEL_FS_HZ <= MAX_S:
        raise BadInputError(f"the model reads {MIN_S:g} to {MAX_S:g} s at once, not {clip.length_s} s")
    return clip


def shipped() -> ProjectorCard | None:
    """Return the shipped projector's card; None if none is shipped."""
    return ProjectorCard.load() if CARD.exists() else None


def tuned_model(path: Path | None = None) -> Path:
    """Return the GGUF file to load: `path`, else the default base merged with the shipped adapter, else the base."""
    base = find_model(path)
    card = shipped()
    if path is not None or card is None:
        return base
    from edge.assistant.merge import merged

    return merged(base, card)


def open_eyes(model: LanguageModel) -> Looker:
    """Return a loaded model as one that looks.

    Raises:
        AnyecgError: no projector is shipped, or none that fits encoder and model.
    """
    card = shipped()
    if card is None or card.checkpoint not in model.name:
        raise AnyecgError("no projector is trained for it")
    from edge.encoder.card import Card

    return Looker(model, Encoder(Card.load(None), provider="cpu"), card)


def open_looker(base: Path | None = None, threads: int = 0) -> Looker:
    """Load encoder, projector and language model.

    Raises:
        AnyecgError: no projector is shipped.
    """
    card = shipped()
    if card is None:
        raise AnyecgError("no projector is shipped with this version: train one (python -m export.assistant.train)")
    from edge.encoder.card import Card

    encoder = Encoder(Card.load(None), provider="cpu")
    card.accept(encoder.card.checkpoint)
    return Looker(LanguageModel(tuned_model(base), threads=threads), encoder, card)
