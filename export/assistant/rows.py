"""Rows of questions and ECGs as tensors: one prefix with the soft tokens, then every question on its own.

The questions of a row share the ECG and do not see one another: each continues the prefix as if it were the only
one, which is what the gateway runs. So the ECG is computed once for several answers.

    ECG: ⟨row⟩0.0⟨row⟩0.6⟨row⟩1.4 … ⟨row⟩10.0;72 ⏎ Q: question ⏎ A: answer ⏎
    ECG 1: … ⏎ ECG 2: … ⏎ Q: question ⏎ A: answer ⏎
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.assistant.prompts import heads, question_text
from edge.assistant.soft import KINDS, LABELS, MARKS, counts_of
from export.assistant.corpus import Clip, Row
from export.assistant.projector import ENDED, SAID

Tokenize = Callable[[str], list[int]]
SOFT = -1
"""Token id that stands for the next row of a soft prompt."""


def marks(tokenize: Tokenize) -> list[int]:
    """Return the token of each character of `MARKS`."""
    ids = [tokenize(char) for char in MARKS]
    assert all(len(one) == 1 for one in ids), "a digit is no token of its own in this language model"
    return [one[0] for one in ids]


@dataclass(frozen=True, slots=True)
class Seen:
    """What heads say of a clip, probabilities."""

    said: NDArray[np.float32]
    """[places, SAID] of `export.assistant.projector`."""
    ended: NDArray[np.float32]
    """[ENDED]."""

    @property
    def flags(self) -> NDArray[np.float32]:
        """[places, labels, 3]."""
        return self.said[:, 1 + len(KINDS) :].reshape(-1, len(LABELS), 3)


@dataclass(frozen=True, slots=True)
class Line:
    """One row as token ids; `segment` 0 is the prefix, 1… the questions; `answer` marks what is learnt."""

    ids: list[int]
    segment: list[int]
    answer: list[bool]
    clips: tuple[Clip, ...] = ()
    seen: tuple[Seen, ...] = ()
    """What heads say of each clip."""


def sequence(row: Row, seen: Sequence[Seen], tokenize: Tokenize, *, written: bool = True) -> Line:
    """Write a row as token ids; times behind the soft tokens if they are `written`."""
    ids: list[int] = []
    known = marks(tokenize)
    for head, clip, one in zip(heads(len(row.clips)), row.clips, seen, strict=True):
        ids += tokenize(head)
        counts = counts_of(one.said)
        for n in range(clip.places.row.size):
            ids.append(SOFT)
            if written:
                ids += [known[MARKS.index(char)] for char in clip.places.written(n, counts)]
    segment = [0] * len(ids)
    answer = [False] * len(ids)
    for n, item in enumerate(row.items, start=1):
        asked, said = tokenize(question_text(item.question)), tokenize(item.answer)
        ids += asked + said
        segment += [n] * (len(asked) + len(said))
        answer += [False] * len(asked) + [True] * len(said)
    return Line(ids, segment, answer, row.clips, tuple(seen))


def plain(pairs: Sequence[tuple[str, str]], tokenize: Tokenize) -> Line:
    """Write prompts without ECG and their answers (planning) as one row; they share nothing but the row."""
    ids: list[int] = []
    segment: list[int] = []
    answer: list[bool] = []
    for n, (prompt, said) in enumerate(pairs, start=1):
        a, b = tokenize(prompt), tokenize(said)
        ids += a + b
        segment += [n] * (len(a) + len(b))
        answer += [False] * len(a) + [True] * len(b)
    return Line(ids, segment, answer)


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch: token ids with holes for soft tokens, and what fills them."""

    ids: Tensor
    """[batch, time], 0 where soft or padded."""
    soft: Tensor
    """bool [batch, time]."""
    said: Tensor
    """[soft tokens, SAID] what heads say of them, in the order of `soft`."""
    ended: Tensor
    """[soft tokens, ENDED] what they say of the clip that each belongs to."""
    tenths: Tensor
    """int [soft tokens]."""
    last: Tensor
    """bool [soft tokens]: the clip ends here."""
    position: Tensor
    mask: Tensor
    """bool [batch, 1, time, time]."""
    predict: Tensor
    """bool [batch, time]: the next token is an answer's."""
    target: Tensor
    """int [predicted]."""


def pack(found: Sequence[Line]) -> Packed:
    """Return a batch of sequences."""
    time = max(len(one.ids) for one in found)
    ids = np.full((len(found), time), 0, dtype=np.int64)
    segment = np.full((len(found), time), -1, dtype=np.int64)
    soft = np.zeros((len(found), time), dtype=bool)
    predict = np.zeros((len(found), time), dtype=bool)
    position = np.zeros((len(found), time), dtype=np.int64)
    target: list[int] = []
    for n, one in enumerate(found):
        size = len(one.ids)
        raw = np.array(one.ids)
        soft[n, :size] = raw == SOFT
        ids[n, :size] = np.where(raw == SOFT, 0, raw)
        segment[n, :size] = one.segment
        prefix = one.segment.count(0)
        for k in range(1, max(one.segment, default=0) + 1):
            inside = np.flatnonzero(np.array(one.segment) == k)
            position[n, inside] = prefix + np.arange(inside.size)
        position[n, :prefix] = np.arange(prefix)
        answers = np.flatnonzero(one.answer)
        predict[n, answers - 1] = True
        target += raw[answers].tolist()
    causal = np.tril(np.ones((time, time), dtype=bool))
    shared = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
    mask = causal & shared | np.eye(time, dtype=bool)
    seen = [one for line in found for one in line.seen]
    sizes = [one.said.shape[0] for one in seen]
    where = [clip.places.tenths for line in found for clip in line.clips]
    ends = np.cumsum(sizes, dtype=np.int64) - 1
    last = np.zeros(sum(sizes), dtype=bool)
    last[ends] = True
    said = np.concatenate([np.zeros((0, SAID), np.float32), *(one.said for one in seen)])
    ended = (
        np.repeat(np.stack([one.ended for one in seen]), sizes, axis=0) if seen else np.zeros((0, ENDED), np.float32)
    )
    return Packed(
        ids=torch.from_numpy(ids),
        soft=torch.from_numpy(soft),
        said=torch.from_numpy(said),
        ended=torch.from_numpy(ended),
        tenths=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *where])),
        last=torch.from_numpy(last),
        position=torch.from_numpy(position),
        mask=torch.from_numpy(mask[:, None]),
        predict=torch.from_numpy(predict),
        target=torch.tensor(target, dtype=torch.int64),
    )
