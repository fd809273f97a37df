"""The projector: what the heads read in the frames, as rows of the language model's embedding space.

A row is what the heads say of a place, each a learned vector by its probability: hidden rows beside it were tried and
told the language model who the person is. The last row says what is true of the whole clip as well. Times are written
behind the rows; a learned vector per decimal digit is the ablation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from edge.assistant.soft import CODES, LABELS, WRITTEN
from export.assistant.facts import BEAT_LABELS
from export.assistant.heads import WHOLE, Heads, Reading

SAID = 1 + len(BEAT_LABELS) + 3 * len(LABELS)
"""What the heads say of a row."""
ENDED = len(WHOLE) + 2 * len(LABELS)
"""What they say of a clip: `WHOLE`, and the largest and mean probability that a row is covered, by label."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a projector is made of; `time` as in `edge.assistant.soft`."""

    width: int = 576
    hidden: int = 224
    measured: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    time: str = WRITTEN
    scale: float = 0.136
    """Standard deviation of the language model's embedding rows."""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


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
        self.heads = Heads(shape.hidden, shape.measured, shape.dilations)
        self.tell = nn.Linear(SAID, shape.width)
        self.tell_end = nn.Linear(ENDED, shape.width, bias=False)
        for one in (self.tell, self.tell_end):
            nn.init.normal_(one.weight, std=shape.scale)
        self.time = Digits(3, shape.width, shape.scale / 2) if shape.time == CODES else None

    def forward(self, said: Tensor, ended: Tensor, tenths: Tensor, last: Tensor) -> Tensor:
        """Return the soft tokens [..., width] of places.

        `said` [..., SAID] and `ended` [..., ENDED] as `told` gives them, `tenths` int [...] the times, `last` bool
        [...] where a clip ends.
        """
        soft: Tensor = self.tell(said) + last.unsqueeze(-1).to(said.dtype) * self.tell_end(ended)
        if self.time is not None:
            soft = soft + self.time(tenths)
        # torch's own rms_norm has no form in ONNX opset 17
        return soft * torch.rsqrt(soft.square().mean(dim=-1, keepdim=True) + 1e-6) * self.shape.scale


def told(reading: Reading, lengths: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is said at the places `row` [batch, places] and of the clips, probabilities.

    The last place of a clip is repeated where a batch has longer ones.
    """
    each = torch.sigmoid(torch.cat([reading.beat.unsqueeze(-1), reading.kind, reading.flags.flatten(2)], dim=-1))
    said = torch.gather(each, 1, row.unsqueeze(-1).expand(-1, -1, SAID))
    real = (torch.arange(each.shape[1]).unsqueeze(0) <= (lengths + 1).unsqueeze(1)).unsqueeze(-1).to(each.dtype)
    cover = torch.sigmoid(reading.flags[..., 2]) * real
    ended = torch.cat([torch.sigmoid(reading.whole), cover.amax(dim=1), cover.sum(dim=1) / real.sum(dim=1)], dim=-1)
    return said, ended


class OneClip(nn.Module):
    """As exported: frames [T, FRAME], row and tenths [places] to

    soft   [places, width] the rows for the language model
    said   [places, SAID] what the heads say: a beat, its kind, and of each label starts here, ends here, covers this
    whole  [WHOLE] what they say of the clip
    marks  [len(MARKS), width] the language model's own rows of the characters that times are written with
    """

    marks: Tensor

    def __init__(self, projector: Projector, marks: Tensor):
        super().__init__()
        self.projector = projector
        self.register_buffer("marks", marks)

    def forward(self, frames: Tensor, row: Tensor, tenths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        lengths = torch.ones_like(row[:1]) * frames.shape[0]
        said, ended = told(self.projector.heads(frames.unsqueeze(0), lengths), lengths, row.unsqueeze(0))
        soft = self.projector(said[0], ended, tenths, row == frames.shape[0] + 1)
        return soft, said[0], ended[0, : len(WHOLE)], self.marks * 1.0
