"""`python -m export.assistant.reading --out FOLDER`: train the projector's heads, and what they say of the data set.

Heads are surer of people they have learnt than of strangers, and a language model that only ever sees them sure does
not know what to make of a stranger. So they are trained three times: on everybody, as shipped, and without each half
of the people; the language model learns from what is said of people who were left out. Weights are a moving average.
A training that is there already is not done again.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.assistant.soft import LABELS
from edge.assistant.wording import Span, merge
from edge.encoder.card import Card
from export.assistant import align
from export.assistant.corpus import Clip, Clips, clips
from export.assistant.heads import Heads
from export.assistant.projector import Shape, told
from export.assistant.rows import Seen
from export.assistant.tasks import NEAR
from export.evaluate.localisation import iou

ALL = "all"
HALVES = ("0", "1")
"""Trainings without the people of half 0 and of half 1."""
BATCH = 24
_LR, _WARM_UP, _DECAY, _AVERAGE = 2e-3, 20, 0.3, 0.99


def half_of(found: Clips) -> NDArray[np.int64]:
    """Return for each clip which half of the people it belongs to: every second record of the sorted ones."""
    half = {key: n % 2 for n, key in enumerate(sorted(found.by_record))}
    return np.array([half[one.db, one.record] for one in found.facts])


def heads_of(shape: Shape) -> Heads:
    """Return untrained heads."""
    return Heads(shape.hidden, shape.measured, shape.dilations)


def train(found: Clips, chosen: Sequence[int], shape: Shape, steps: int, seed: int, checks: Clips) -> Heads:
    """Train heads on the chosen clips; tells losses and figures of `checks` on the way."""
    torch.manual_seed(seed)
    heads = heads_of(shape)
    kept = copy.deepcopy(heads).eval()
    optimiser = torch.optim.AdamW(heads.parameters(), lr=_LR, weight_decay=0.02, betas=(0.9, 0.98), fused=True)
    mean = 0.0
    for step in range(steps):
        factor = min(1.0, (step + 1) / _WARM_UP, (steps - step) / (_DECAY * steps))
        for group in optimiser.param_groups:
            group["lr"] = _LR * max(factor, 0.02)
        frames, lengths, wanted = align.batch(
            [found[n] for n in _drawn(found, chosen, step, seed)], np.random.default_rng((seed, 8, step))
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss = align.loss(heads(frames, lengths), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            share = min(_AVERAGE, (step + 1) / (step + 10))
            for average, now in zip(kept.parameters(), heads.parameters(), strict=True):
                average.lerp_(now, 1 - share)
        mean = 0.98 * mean + 0.02 * float(loss.detach()) if step else float(loss.detach())
        if (step + 1) % 200 == 0:
            print(json.dumps({"step": step + 1, "loss": round(mean, 4)} | judged(kept, checks)), flush=True)
    return kept


def _drawn(found: Clips, chosen: Sequence[int], step: int, seed: int) -> list[int]:
    """Return the clips of a step: of about equal length, out of eight batches."""
    group, place = divmod(step, 8)
    rng = np.random.default_rng((seed, 7, group))
    drawn = sorted(rng.choice(chosen, 8 * BATCH).tolist(), key=found.tokens)
    return drawn[BATCH * int(rng.permutation(8)[place]) :][:BATCH]


@torch.no_grad()
def say(heads: Heads, found: Sequence[Clip], rng: np.random.Generator | None = None) -> list[Seen]:
    """Return what heads say of clips; with `rng` their frames are blurred."""
    heads.eval()
    frames, lengths = align.frames_of(found, rng)
    most = max(clip.places.row.size for clip in found)
    rows = np.stack([np.pad(clip.places.row, (0, most - clip.places.row.size), mode="edge") for clip in found])
    with torch.autocast("cpu", torch.bfloat16):
        reading = heads(frames, lengths)
    said, ended = told(reading, lengths, torch.from_numpy(rows))
    return [
        Seen(one[: clip.places.row.size].numpy().astype(np.float32), end.numpy().astype(np.float32))
        for one, end, clip in zip(said.float(), ended.float(), found, strict=True)
    ]


def readings(
    found: Clips, by: Sequence[Heads], which: NDArray[np.int64], rng: np.random.Generator | None = None
) -> list[Seen]:
    """Return what `by[which[n]]` says of each clip `n`."""
    out: list[Seen | None] = [None] * len(found)
    for k, heads in enumerate(by):
        order = sorted(np.flatnonzero(which == k).tolist(), key=found.tokens)
        for at in range(0, len(order), BATCH):
            part = order[at : at + BATCH]
            for n, seen in zip(part, say(heads, [found[n] for n in part], rng), strict=True):
                out[n] = seen
    return [seen for seen in out if seen is not None]


def spans_of(flags: NDArray[np.floating], tenths: NDArray[np.int64], label: str) -> list[Span]:
    """Return the spans of a label that heads answer: places covered, by their times; `flags` [places, labels, 3]."""
    cover = np.concatenate([[False], flags[:, LABELS.index(label), 2] > 0.5, [False]])
    edges = np.flatnonzero(np.diff(cover.astype(np.int8)))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return merge([(tenths[a] / 10, tenths[b - 1] / 10) for a, b in pairs if b - a > 1])


def judged(heads: Heads, checks: Clips) -> dict[str, Any]:
    """Return mean IoU of the paper's labels in clips that have them and in clips that have not, per cent."""
    scores: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in NEAR}
    for n, seen in enumerate(readings(checks, [heads], np.zeros(len(checks), dtype=np.int64))):
        clip = checks[n]
        for label in NEAR:
            if label in clip.facts.spans:
                wanted = clip.facts.spans[label]
                spans = spans_of(seen.flags, clip.places.tenths, label)
                scores[label][0 if wanted else 1].append(iou(wanted, spans))
    return {
        label: [round(100 * float(np.mean(part)), 1) if part else None for part in parts]
        for label, parts in scores.items()
    }


def load(path: Path) -> Heads:
    """Read trained heads."""
    heads = heads_of(Shape())
    heads.load_state_dict(torch.load(path, weights_only=True)["heads"])
    return heads.eval()


def main() -> None:
    """Train the heads on everybody and without each half of the people."""
    parser = argparse.ArgumentParser(prog="python -m export.assistant.reading", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the heads, outside the repository")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--only", choices=(ALL, *HALVES), help="one of the three, to run them side by side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--card", type=Path, default=None, help="card of the encoder; default: the shipped one")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    encoder = Card.load(given.card)
    found = clips(encoder, "train", given.clips, workers=given.threads)
    checks = clips(encoder, "validation", given.clips // 10, workers=given.threads)
    half, shape = half_of(found), Shape()
    for name in (ALL, *HALVES) if given.only is None else (given.only,):
        path = given.out / f"heads-{name}.pt"
        if path.exists():
            continue
        chosen = np.flatnonzero(half != int(name)).tolist() if name != ALL else list(range(len(found)))
        print(json.dumps({"heads": name, "clips": len(chosen), "encoder": encoder.checkpoint}), flush=True)
        heads = train(found, chosen, shape, given.steps, given.seed, checks)
        stored = {
            "heads": heads.state_dict(),
            "steps": given.steps,
            "encoder": encoder.checkpoint,
        }
        torch.save(stored, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    main()
