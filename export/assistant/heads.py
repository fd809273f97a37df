"""What the projector reads in the frames: annotated beats, spans and the whole clip, learnt without a language model.

Convolutions over ±8 s and a mean over the clip; linear heads say for every row whether a beat lies in it, of which
kind, and for every label whether a span starts, ends or goes on here; for the clip its rhythm, quality and
diagnostic superclasses. Bundle branch blocks are read from the measures of the beats alone, by a trunk of their own:
what the encoder's tokens know of them is who the person is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.assistant.beats import MEASURES
from edge.assistant.soft import FRAME, LABELS, QUALITIES
from edge.encoder.contract import RHYTHMS
from export.assistant.facts import BEAT_LABELS
from export.assistant.wording import SUPERCLASSES

WHOLE = (*RHYTHMS, *QUALITIES, *SUPERCLASSES)
"""What is said of a whole clip."""
MEASURED = ("LBBB", "RBBB")
"""Labels that are read from measures alone."""
_KINDS = [BEAT_LABELS.index(label) for label in MEASURED]
_LABELS = [LABELS.index(label) for label in MEASURED]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the heads say, logits."""

    beat: Tensor
    """[batch, rows]."""
    kind: Tensor
    """[batch, rows, 5]."""
    flags: Tensor
    """[batch, rows, labels, 3]: a span starts here, ends here, covers this row."""
    whole: Tensor
    """[batch, WHOLE]."""


class _Step(nn.Module):
    def __init__(self, hidden: int, dilation: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.conv = nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        h = self.conv((self.norm(x) * real).transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.mix(functional.gelu(h))
        return out


class Trunk(nn.Module):
    """Frames [batch, T, entering] to features [batch, T + 2, hidden] of rows: the beginning, frames, the end."""

    def __init__(self, entering: int, hidden: int, dilations: tuple[int, ...]):
        super().__init__()
        self.enter = nn.Linear(entering, hidden)
        self.edges = nn.Parameter(torch.randn(2, hidden) * 0.1)
        self.steps = nn.ModuleList(_Step(hidden, d) for d in dilations)
        self.whole = nn.Linear(2 * hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, frames: Tensor, real: Tensor, last: Tensor) -> Tensor:
        """Return the features; `real` [batch, rows, 1] 1 up to the end, `last` [batch, rows, 1] 1 at the end."""
        x = functional.pad(self.enter(frames), (0, 0, 1, 1))
        first = torch.zeros_like(last)
        first[:, 0] = 1
        x = (x * (1 - last) + first * self.edges[0] + last * self.edges[1]) * real
        half = len(self.steps) // 2
        for n, step in enumerate(self.steps):
            if n == half:
                x = x + self.whole(pooled(x, real)).unsqueeze(1) * real
            x = step(x, real) * real
        out: Tensor = self.norm(x)
        return out


def pooled(x: Tensor, real: Tensor) -> Tensor:
    """Return mean and maximum of `x` [batch, rows, channels] over the rows that are `real`, [batch, 2 · channels]."""
    mean = (x * real).sum(dim=1) / real.sum(dim=1)
    return torch.cat([mean, (x + (real - 1) * 1e4).amax(dim=1)], dim=-1)


def rows_of(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return `real` and `last` as `Trunk` takes them; `lengths` int [batch], frames of each clip."""
    row = torch.arange(frames.shape[1] + 2).unsqueeze(0)
    end = (lengths + 1).unsqueeze(1)
    return (row <= end).unsqueeze(-1).to(frames.dtype), (row == end).unsqueeze(-1).to(frames.dtype)


class Heads(nn.Module):
    """See the module docstring."""

    def __init__(self, hidden: int, measured: int, dilations: tuple[int, ...]):
        super().__init__()
        self.trunk = Trunk(FRAME, hidden, dilations)
        self.beat = nn.Linear(hidden, 1)
        self.kind = nn.Linear(hidden, len(BEAT_LABELS))
        self.flags = nn.Linear(hidden, len(LABELS) * 3)
        self.whole = nn.Linear(2 * hidden, len(WHOLE))
        self.measured = Trunk(MEASURES, measured, dilations)
        self.measured_kind = nn.Linear(measured, len(MEASURED))
        self.measured_flags = nn.Linear(measured, len(MEASURED) * 3)

    def forward(self, frames: Tensor, lengths: Tensor) -> Reading:
        """Return what the heads say; `frames` [batch, T, FRAME], `lengths` int [batch] ≤ T."""
        real, last = rows_of(frames, lengths)
        h = self.trunk(frames, real, last)
        m = self.measured(frames[..., -MEASURES:], real, last)
        kind, flags = self.kind(h), self.flags(h).unflatten(-1, (len(LABELS), 3))
        kind = _replaced(kind, 2, self.measured_kind(m), _KINDS)
        flags = _replaced(flags, 2, self.measured_flags(m).unflatten(-1, (len(MEASURED), 3)), _LABELS)
        return Reading(self.beat(h).squeeze(-1), kind, flags, self.whole(pooled(h, real)))


def _replaced(x: Tensor, dim: int, by: Tensor, places: list[int]) -> Tensor:
    """Return `x` with neighbouring `places` of a dimension taken from `by`."""
    first, after = places[0], places[-1] + 1
    return torch.cat([x.narrow(dim, 0, first), by, x.narrow(dim, after, x.shape[dim] - after)], dim=dim)
