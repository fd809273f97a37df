"""The encoder network: a per-lead convolutional stem, pooling over leads, causal context, a decoder back to beats.

Shift-equivariant with a bounded receptive field (`edge.encoder.contract`): no statistics over a window, strides and
pooling aligned to whole seconds, dilated convolutions padded mostly on the left. Everything in the graph except the
convolutions and the final sigmoids is plain arithmetic, so that ONNX Runtime gives the same bits wherever a frame
lies. Tensors are [batch, channels, 1, time] because ONNX Runtime's blocked convolutions are two-dimensional.

    128 Hz  fixed-scale and locally scaled copies, mask of recorded samples
     64 Hz  24 channels ┐
     32 Hz  48 channels ├ per lead; pooled over leads at 32 and 16 Hz by a masked softmax
     16 Hz  96 channels ┘ absolute amplitude joins here (asystole is not VF)
      8 Hz 128 channels   context
      4 Hz 192 channels   context over the past → tokens (LayerNorm)
     decoder              tokens + skips at 8, 16 and 32 Hz → beats, and waves four samples to a frame;
                          tokens → rhythm and quality per second
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.encoder.contract import BEAT_CLASSES, BEAT_FS_HZ, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, TOKEN_DIM, WAVES


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths and dilations; part of a checkpoint."""

    stem: tuple[int, int, int] = (24, 48, 96)
    middle: int = 128
    decoder: tuple[int, int] = (96, 64)
    middle_dilations: tuple[int, ...] = (1, 2, 4)
    past_dilations: tuple[int, ...] = (1, 2, 4, 8, 5)


DROPOUT = 0.15
"""Share of channels dropped in training, per lead at 16 Hz and after the context at 4 Hz."""
DROPOUT_SECOND = 0.3
"""The same before the heads per second, whose labels come from the fewest people."""


@dataclass(frozen=True, slots=True)
class Logits:
    """What the network says before the sigmoids and softmaxes."""

    r_peak: Tensor
    """[batch, time/4]."""
    beat: Tensor
    """[batch, time/4, 5]."""
    morphology: Tensor
    """[batch, time/4, 5]."""
    rhythm: Tensor
    """[batch, time/128, 8]."""
    quality: Tensor
    """[batch, time/128]."""
    token_beat: Tensor
    """[batch, time/32, 6]: class of the beats within a token, 0 = none; keeps class information in the tokens."""
    wave: Tensor
    """[batch, time, 4]."""
    tokens: Tensor
    """[batch, time/32, 192]."""


class Conv(nn.Module):
    """Convolution with its own left and right padding, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, k: int, stride: int = 1, dilation: int = 1, right: int | None = None):
        super().__init__()
        reach = (k - 1) * dilation
        ahead = reach // 2 if right is None else right * dilation
        even = 2 * ahead == reach
        self.pad = (0, 0) if even else (reach - ahead, ahead)
        self.conv = nn.Conv2d(
            *(inputs, outputs, (1, k)),
            stride=(1, stride),
            padding=(0, ahead if even else 0),
            dilation=(1, dilation),
            bias=False,
        )
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if self.pad != (0, 0):
            x = functional.pad(x, (*self.pad, 0, 0))
        out: Tensor = self.norm(self.conv(x))
        return out


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int, k: int):
        super().__init__()
        self.one = Conv(channels, channels, k)
        self.two = Conv(channels, channels, k)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.two(torch.relu(self.one(x))))


class Step(nn.Module):
    """One dilated convolution added to its input; frames without any lead stay zero, like the padding."""

    def __init__(self, channels: int, dilation: int, right: int):
        super().__init__()
        self.conv = Conv(channels, channels, 3, dilation=dilation, right=right)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        return (x + torch.relu(self.conv(x))) * present


class LeadPool(nn.Module):
    """Weighted mean over the leads present in each frame; zero where there is none."""

    def __init__(self, channels: int):
        super().__init__()
        self.score = nn.Conv2d(channels, 1, (1, 1))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """`x` [batch, lead, channels, frame], `present` [batch, lead, 1, frame] of 0 and 1."""
        batch, lead, channels, frame = x.shape
        score = self.score(x.reshape(batch * lead, channels, 1, frame)).reshape(batch, lead, 1, frame)
        weight = torch.exp(4 * torch.tanh(score.float() / 4)) * present
        weight = weight / (_sum_of_leads(weight) + 1e-6)
        return _sum_of_leads(x * weight).reshape(batch, channels, 1, frame)


def _sum_of_leads(x: Tensor) -> Tensor:
    """Return the sum over axis 1, kept; lead after lead, for ReduceSum changes its order with the batch size."""
    return torch.cumsum(x, dim=1)[:, -1:]


def _repeat(x: Tensor, times: int) -> Tensor:
    """Hold each frame `times` times: [batch, channels, 1, frame · times]."""
    return functional.interpolate(x, scale_factor=(1.0, float(times)), mode="nearest")


class Encoder(nn.Module):
    """See the module docstring; `forward` takes the contract's `ecg`."""

    def __init__(self, shape: Shape | None = None):
        super().__init__()
        self.shape = shape = shape or Shape()
        c64, c32, c16 = shape.stem
        d16, d32 = shape.decoder
        self.to64 = Conv(3, c64, 9, stride=2)
        self.at64 = Residual(c64, 5)
        self.to32 = Conv(c64, c32, 5, stride=2)
        self.at32 = Residual(c32, 5)
        self.to16 = Conv(c32, c16, 5, stride=2)
        self.amplitude = nn.Conv2d(4, c16, (1, 1))
        self.at16 = Residual(c16, 3)
        self.drop = nn.Dropout2d(DROPOUT)
        self.pool32 = LeadPool(c32)
        self.pool16 = LeadPool(c16)
        self.to8 = Conv(c16, shape.middle, 3, stride=2)
        self.at8 = nn.ModuleList(Step(shape.middle, d, right=1) for d in shape.middle_dilations)
        self.to4 = nn.Sequential(
            nn.Conv2d(shape.middle, TOKEN_DIM, (1, 2), stride=(1, 2), bias=False), nn.BatchNorm2d(TOKEN_DIM, eps=1e-3)
        )
        self.at4 = nn.ModuleList(Step(TOKEN_DIM, d, right=0) for d in shape.past_dilations)
        self.norm = nn.LayerNorm(TOKEN_DIM)

        self.token8 = nn.Conv2d(TOKEN_DIM, d16, (1, 1))
        self.skip8 = nn.Conv2d(shape.middle, d16, (1, 1))
        self.skip16 = nn.Conv2d(c16, d16, (1, 1))
        self.decode16 = Conv(d16, d16, 3)
        self.narrow = nn.Conv2d(d16, d32, (1, 1))
        self.skip32 = nn.Conv2d(c32, d32, (1, 1))
        self.decode32 = Residual(d32, 3)
        self.beats = nn.Conv2d(d32, 1 + len(BEAT_CLASSES) + len(MORPHOLOGIES), (1, 1))
        self.shape32 = Conv(d32, d32, 3)
        self.waves = nn.Conv2d(d32, MODEL_FS_HZ // BEAT_FS_HZ * len(WAVES), (1, 1))
        self.drop_second = nn.Dropout2d(DROPOUT_SECOND)
        self.second = nn.Conv2d(2 * TOKEN_DIM, 96, (1, 1))
        self.rhythm = nn.Conv2d(96, len(RHYTHMS) + 1, (1, 1))
        self.token_beat = nn.Linear(TOKEN_DIM, 1 + len(BEAT_CLASSES))

    def forward(self, ecg: Tensor) -> Logits:
        """Return the logits for `ecg` float32 [batch, lead, time]."""
        batch, lead, time = ecg.shape
        recorded = (~torch.isnan(ecg)).to(torch.float32)
        ecg = torch.where(torch.isnan(ecg), torch.zeros_like(ecg), ecg)
        x, recorded = (v.reshape(batch * lead, 1, 1, time) for v in (ecg, recorded))

        # a frame counts as recorded when more than half of it is
        seen16 = (functional.avg_pool2d(recorded, (1, 8)) > 0.5).to(torch.float32)
        peak = functional.max_pool2d(torch.abs(x), (1, 8))
        high = functional.max_pool2d(functional.pad(peak, (8, 7, 0, 0)), (1, 16), stride=1) * seen16
        past = (39, 0, 0, 0)
        weight = functional.avg_pool2d(functional.pad(seen16, past), (1, 40), stride=1)
        mean_high = functional.avg_pool2d(functional.pad(high, past), (1, 40), stride=1) / (weight + 1e-3)
        local = x / (_repeat(mean_high, 8) + 0.03)
        inputs = torch.cat([x / (torch.abs(x) + 0.5), local / (torch.abs(local) + 1.0), recorded], dim=1)
        amplitude = torch.cat(
            [high / (high + 0.05), high / (high + 0.5), mean_high / (mean_high + 0.05), mean_high / (mean_high + 0.5)],
            dim=1,
        )

        h = self.at64(torch.relu(self.to64(inputs)))
        h32 = self.at32(torch.relu(self.to32(h)))
        h16 = self.drop(self.at16(torch.relu(self.to16(h32) + self.amplitude(amplitude))))
        seen32 = _repeat(seen16, 2)
        p32 = self.pool32(h32.reshape(batch, lead, -1, time // 4), seen32.reshape(batch, lead, 1, time // 4))
        p16 = self.pool16(h16.reshape(batch, lead, -1, time // 8), seen16.reshape(batch, lead, 1, time // 8))
        any16 = seen16.reshape(batch, lead, 1, time // 8).max(dim=1, keepdim=True).values
        any8 = functional.max_pool2d(any16, (1, 2))
        any4 = functional.max_pool2d(any8, (1, 2))

        h8 = torch.relu(self.to8(p16)) * any8
        for step in self.at8:
            h8 = step(h8, any8)
        h4 = torch.relu(self.to4(h8)) * any4
        for step in self.at4:
            h4 = step(h4, any4)
        tokens = self.norm(self.drop(h4).squeeze(2).transpose(1, 2))
        columns = tokens.transpose(1, 2).unsqueeze(2)

        d = _repeat(self.token8(columns), 2) + self.skip8(h8)
        d = torch.relu(_repeat(torch.relu(d), 2) + self.skip16(p16))
        d = torch.relu(d + self.decode16(d))
        d = self.decode32(torch.relu(_repeat(self.narrow(d), 2) + self.skip32(p32)))
        beats = self.beats(d).squeeze(2).transpose(1, 2)
        waves = self.waves(torch.relu(self.shape32(d))).squeeze(2).transpose(1, 2)
        pooled = torch.cat([functional.avg_pool2d(columns, (1, 4)), functional.max_pool2d(columns, (1, 4))], dim=1)
        second = self.rhythm(torch.relu(self.second(self.drop_second(pooled)))).squeeze(2).transpose(1, 2)
        classes = len(BEAT_CLASSES)
        return Logits(
            r_peak=beats[..., 0],
            beat=beats[..., 1 : 1 + classes],
            morphology=beats[..., 1 + classes :],
            rhythm=second[..., :-1],
            quality=second[..., -1],
            token_beat=self.token_beat(tokens),
            wave=waves.reshape(batch, time, len(WAVES)),
            tokens=tokens,
        )


class Probabilities(nn.Module):
    """The network as it is exported: the contract's outputs, in its order."""

    def __init__(self, network: Encoder):
        super().__init__()
        self.network = network

    def forward(self, ecg: Tensor) -> tuple[Tensor, ...]:
        said = self.network(ecg)
        return (
            torch.sigmoid(said.r_peak),
            torch.softmax(said.beat, dim=-1),
            torch.softmax(said.morphology, dim=-1),
            torch.softmax(said.rhythm, dim=-1),
            torch.sigmoid(said.quality),
            torch.softmax(said.wave, dim=-1),
            said.tokens,
        )
