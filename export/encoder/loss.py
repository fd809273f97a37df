"""What the network is punished for: one masked loss per head, so that every database teaches what it knows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edge.encoder.contract import BEAT_FS_HZ
from export.datasets.record import NOT_AF
from export.encoder.batch import Targets
from export.encoder.network import Logits

BEAT_WEIGHTS = (1.0, 3.0, 2.0, 2.0, 1.0)
"""N S V F Q."""
RHYTHM_WEIGHTS = (1.0, 1.0, 2.0, 2.0, 2.0, 1.5, 0.7, 1.5)
"""N AFIB AFL SVTA VT VF P ASYS."""
HEADS = {"r_peak": 4.0, "beat": 1.0, "morphology": 0.3, "rhythm": 0.7, "quality": 0.4, "token": 0.3, "wave": 0.5}
SMOOTHING = {"beat": 0.05, "morphology": 0.05, "rhythm": 0.1, "token": 0.05}
"""Share of each label spread over all classes in training: validation loss of rhythm rose from step 1000 without it."""
_AFIB = 1
_START_FRAMES = BEAT_FS_HZ // 4
"""Frames at either end of a crop that are not judged: half of their QRS is outside."""


def losses(said: Logits, targets: Targets, *, smooth: bool = False) -> dict[str, Tensor]:
    """Return the mean loss per head over what is known; heads without a label in the batch give 0.

    smooth  spread labels by `SMOOTHING`, for training
    """
    spread = SMOOTHING if smooth else dict.fromkeys(SMOOTHING, 0.0)
    r_mask = torch.from_numpy(targets.r_peak_mask).clone()
    r_mask[:, :_START_FRAMES] = 0
    r_mask[:, -_START_FRAMES:] = 0
    r_peak = functional.binary_cross_entropy_with_logits(
        said.r_peak.float(), torch.from_numpy(targets.r_peak), reduction="none"
    )
    quality = torch.from_numpy(targets.quality)
    quality_mask = (quality >= 0).float()
    quality_loss = functional.binary_cross_entropy_with_logits(
        said.quality.float(), quality.clamp(min=0).float(), reduction="none"
    )
    return {
        "r_peak": _mean(r_peak, r_mask),
        "beat": _classes(said.beat, targets.beat, BEAT_WEIGHTS, spread["beat"]),
        "morphology": _classes(said.morphology, targets.morphology, smoothing=spread["morphology"]),
        "rhythm": _rhythm(said.rhythm.float(), torch.from_numpy(targets.rhythm), spread["rhythm"]),
        "quality": _mean(quality_loss, quality_mask),
        "token": _classes(said.token_beat, targets.token, (0.5, *BEAT_WEIGHTS), spread["token"]),
        "wave": _classes(said.wave, targets.wave),
    }


def total(each: dict[str, Tensor]) -> Tensor:
    """Return the weighted sum."""
    return torch.stack([HEADS[name] * loss for name, loss in each.items()]).sum()


def _mean(loss: Tensor, mask: Tensor) -> Tensor:
    return (loss * mask).sum() / mask.sum().clamp(min=1)


def _classes(
    logits: Tensor, target: object, weights: tuple[float, ...] | None = None, smoothing: float = 0.0
) -> Tensor:
    wanted = torch.as_tensor(target)
    known = wanted >= 0
    loss = functional.cross_entropy(
        logits.float().flatten(0, 1), wanted.clamp(min=0).flatten(), reduction="none", label_smoothing=smoothing
    ).reshape(wanted.shape)
    weight = known.float()
    if weights is not None:
        weight = weight * torch.tensor(weights)[wanted.clamp(min=0)]
    return _mean(loss, weight)


def _rhythm(logits: Tensor, wanted: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy where the rhythm is known; −log(1 − P(AFIB)) where it is only known not to be AF."""
    log_p = functional.log_softmax(logits, dim=-1)
    known = wanted >= 0
    loss = -log_p.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    loss = (1 - smoothing) * loss - smoothing * log_p.mean(-1)
    not_af = torch.logsumexp(torch.cat([log_p[..., :_AFIB], log_p[..., _AFIB + 1 :]], dim=-1), dim=-1)
    loss = torch.where(known, loss, -not_af)
    weight = torch.tensor(RHYTHM_WEIGHTS)[wanted.clamp(min=0)] * known + (wanted == NOT_AF)
    return _mean(loss, weight)
