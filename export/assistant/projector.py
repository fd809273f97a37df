"""The projector: frames of the encoder to soft tokens, with its own reading of them as auxiliary task.

Convolutions over ±8 s and a mean over the clip; linear heads say for every row whether a beat lies in it, of which
kind, and for every label whether a span starts, ends or goes on here. They are trained with the annotations
(alignment), and what they say, each a learned vector by its probability, is the row that the language model sees:
hidden rows beside it were tried and told it who the person is. Counts of what the heads see enter the last row as
codes, one learned vector per decimal digit; so does time in the ablation without written times.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.assistant.soft import CODES, FRAME, LABELS, WRITTEN
from export.assistant.facts import BEAT_LABELS


@dataclass(frozen=True, slots=True)
class Shape:
    """What a projector is made of; `time` as in `edge.assistant.soft`."""

    width: int = 576
    hidden: int = 224
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    time: str = WRITTEN
    scale: float = 0.136
    """Standard deviation of the language model's embedding rows."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the heads say, logits."""

    beat: Tensor
    """[batch, rows]."""
    kind: Tensor
    """[batch, rows, 5]."""
    flags: Tensor
    """[batch, rows, labels, 3]: a span starts here, ends here, covers this row."""


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


class Digits(nn.Module):
    """Whole numbers as the sum of one learned vector per decimal digit, highest digit first."""

    def __init__(self, digits: int, width: int, scale: float):
        super().__init__()
        self.digits = digits
        self.table = nn.Embedding(10 * digits, width)
        nn.init.normal_(self.table.weight, std=scale)

    def forward(self, value: Tensor) -> Tensor:
        value = value.clamp(0, 10**self.digits - 1)
        place = 10 ** torch.arange(self.digits - 1, -1, -1)
        each = (value.unsqueeze(-1) // place) % 10
        out: Tensor = self.table(each + 10 * torch.arange(self.digits)).sum(dim=-2)
        return out


class Projector(nn.Module):
    """See the module docstring."""

    def __init__(self, shape: Shape | None = None):
        super().__init__()
        self.shape = shape = shape or Shape()
        hidden = shape.hidden
        self.enter = nn.Linear(FRAME, hidden)
        self.edges = nn.Parameter(torch.randn(2, hidden) * 0.1)
        self.steps = nn.ModuleList(_Step(hidden, d) for d in shape.dilations)
        self.whole = nn.Linear(2 * hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.beat = nn.Linear(hidden, 1)
        self.kind = nn.Linear(hidden, len(BEAT_LABELS))
        self.flags = nn.Linear(hidden, len(LABELS) * 3)
        said = 1 + len(BEAT_LABELS) + 3 * len(LABELS)
        self.tell = nn.Linear(said, shape.width)
        nn.init.normal_(self.tell.weight, std=shape.scale)
        self.time = Digits(3, shape.width, shape.scale / 2) if shape.time == CODES else None
        self.counts = nn.ModuleList(Digits(2, shape.width, shape.scale / 2) for _ in range(2))

    def read(self, frames: Tensor, lengths: Tensor) -> Reading:
        """Return what the heads say; `frames` [batch, T, FRAME], `lengths` int [batch] ≤ T."""
        batch, time, _ = frames.shape
        row = torch.arange(time + 2).unsqueeze(0)
        last = (lengths + 1).unsqueeze(1)
        real = (row <= last).unsqueeze(-1).to(frames.dtype)
        x = functional.pad(self.enter(frames), (0, 0, 1, 1))
        at_end = (row == last).unsqueeze(-1).to(frames.dtype)
        at_start = (row == 0).unsqueeze(-1).to(frames.dtype)
        x = x * (1 - at_end) + at_start * self.edges[0] + at_end * self.edges[1]
        x = x * real
        half = len(self.steps) // 2
        for n, step in enumerate(self.steps):
            if n == half:
                mean = (x * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
                highest = (x + (real - 1) * 1e4).amax(dim=1, keepdim=True)
                x = x + self.whole(torch.cat([mean, highest], dim=-1)) * real
            x = step(x, real) * real
        h = self.norm(x)
        flags = self.flags(h).reshape(batch, time + 2, len(LABELS), 3)
        return Reading(self.beat(h).squeeze(-1), self.kind(h), flags)

    def forward(self, frames: Tensor, lengths: Tensor, row: Tensor, tenths: Tensor) -> tuple[Tensor, Reading]:
        """Return the soft tokens [batch, places, width] and the reading of all rows.

        `row` and `tenths` [batch, places] as in `edge.assistant.soft.Places`, the last place of a clip repeated.
        """
        said = self.read(frames, lengths)
        each = torch.cat([said.beat.unsqueeze(-1), said.kind, said.flags.flatten(2)], dim=-1)
        probability = _at(torch.sigmoid(each), row)
        soft = self.tell(probability)
        if self.time is not None:
            soft = soft + self.time(tenths)
        last = (lengths + 1).unsqueeze(1)
        beat = (probability[..., 0] > 0.5) & (row > 0) & (row < last)
        summary = torch.zeros_like(soft[:, 0])
        for n, digits in enumerate(self.counts):
            summary = summary + digits((beat & (probability[..., 1 + n] > 0.5)).sum(dim=1))
        soft = soft + (row == last).unsqueeze(-1).to(soft.dtype) * summary.unsqueeze(1)
        # torch's own rms_norm has no form in ONNX opset 17
        soft = soft * torch.rsqrt(soft.square().mean(dim=-1, keepdim=True) + 1e-6) * self.shape.scale
        return soft, said


def _at(values: Tensor, row: Tensor) -> Tensor:
    """Return the rows [batch, places, channels] of values [batch, rows, channels]."""
    return torch.gather(values, 1, row.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class OneClip(nn.Module):
    """As exported: frames [T, FRAME], row and tenths [places] to

    soft   [places, width] the rows for the language model
    flags  [places, labels, 3] what the heads say: probability that a span starts here, ends here, covers this row
    marks  [len(MARKS), width] the language model's own rows of the characters that times are written with
    """

    marks: Tensor

    def __init__(self, projector: Projector, marks: Tensor):
        super().__init__()
        self.projector = projector
        self.register_buffer("marks", marks)

    def forward(self, frames: Tensor, row: Tensor, tenths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.ones_like(row[:1]) * frames.shape[0]
        soft, said = self.projector(frames.unsqueeze(0), lengths, row.unsqueeze(0), tenths.unsqueeze(0))
        return soft[0], torch.sigmoid(said.flags[0, row]), self.marks * 1.0
