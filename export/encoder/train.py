"""`python -m export.encoder.train --out FOLDER`: trains the encoder, resumable from its checkpoint.

On a GPU where CUDA finds one, else on one thread of the CPU; in both the network runs in bf16, losses in float32.

A checkpoint holds weights, their moving average (what is exported), the optimiser and the step; batches depend on
the step alone, so a resumed training continues as if it had never stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge.encoder.contract import MODEL_FS_HZ
from export.datasets.reader import load
from export.datasets.record import Record
from export.datasets.splits import DATABASES, FOLDS, Part, fold
from export.encoder.batch import Batch, Sampler
from export.encoder.loss import losses, total
from export.encoder.network import Encoder, Logits, Shape
from export.encoder.spoil import Noise


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training depends on besides data and code."""

    steps: int = 4300
    peak_lr: float = 2e-3
    warm_up: int = 200
    weight_decay: float = 0.05
    average: float = 0.998
    seed: int = 1

    def lr(self, step: int) -> float:
        """Linear warm-up, then a cosine down to 1 %."""
        if step < self.warm_up:
            return self.peak_lr * (step + 1) / self.warm_up
        done = min((step - self.warm_up) / max(self.steps - self.warm_up, 1), 1.0)
        return self.peak_lr * (0.01 + 0.99 * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi)))))


class Trainer:
    """Network, optimiser and moving average at one step."""

    def __init__(self, settings: Settings, shape: Shape | None = None, device: str = "cpu"):
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = device
        self.network = Encoder(shape).to(device)
        self.average = Encoder(shape).to(device)
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval()
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.peak_lr, weight_decay=settings.weight_decay, fused=True)
        self.step = 0

    def train(self, batch: Batch) -> dict[str, float]:
        """Take one step; return the loss of each head."""
        self.network.train()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr(self.step)
        with torch.autocast(self.device, torch.bfloat16):
            said = self._said(self.network, batch)
        each = losses(said, batch.targets, smooth=True)
        self.optimiser.zero_grad(set_to_none=True)
        total(each).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return {name: float(loss.detach()) for name, loss in each.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        for mine, theirs in zip(self._state(self.average), self._state(self.network), strict=True):
            mine.lerp_(theirs, 1 - keep)

    @staticmethod
    def _state(network: nn.Module) -> Iterator[Tensor]:
        return (value for value in network.state_dict().values() if value.dtype.is_floating_point)

    def _said(self, network: Encoder, batch: Batch) -> Logits:
        """Return what a network says, where the targets are: losses are small and made on the CPU."""
        said = network(torch.from_numpy(batch.ecg).to(self.device))
        return Logits(**{each.name: getattr(said, each.name).cpu() for each in fields(said)})

    @torch.no_grad()
    def judge(self, batches: list[Batch]) -> dict[str, float]:
        """Return the mean loss of each head of the averaged network, without autocast."""
        sums: dict[str, float] = {}
        for batch in batches:
            for name, loss in losses(self._said(self.average, batch), batch.targets).items():
                sums[name] = sums.get(name, 0.0) + float(loss) / len(batches)
        return sums

    def save(self, path: Path) -> None:
        """Write the checkpoint so that a crash leaves the old or the new one."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self.settings),
                "shape": asdict(self.network.shape),
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
            },
            part,
        )
        part.replace(path)

    @staticmethod
    def resume(path: Path, device: str = "cpu") -> Trainer:
        """Return the trainer as it was when `path` was written."""
        stored = torch.load(path, map_location=device, weights_only=True)
        trainer = Trainer(Settings(**stored["settings"]), Shape(**stored["shape"]), device)
        trainer.network.load_state_dict(stored["network"])
        trainer.average.load_state_dict(stored["average"])
        trainer.optimiser.load_state_dict(stored["optimiser"])
        trainer.step = int(stored["step"])
        return trainer


def averaged(path: Path) -> Encoder:
    """Return the averaged network of a checkpoint, ready for inference."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = Encoder(Shape(**stored["shape"]))
    network.load_state_dict(stored["average"])
    return network.eval()


def records(parts: tuple[Part, ...], held_out: tuple[int, ...]) -> dict[str, list[Record]]:
    """Return the records to learn from, by database.

    With folds held out, vfdb's test records are trained on as well, unless they are in one of them.
    """
    found = {}
    for db in DATABASES:
        which = (*parts, "test") if held_out and db == "vfdb" else parts
        found[db] = [r for part in which for r in load(db, part) if fold(db, r.name) not in held_out]
    return found


def main() -> None:
    """Train until the last step, resuming from `OUT/checkpoint.pt` if it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log, outside the repository")
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--seed", type=int, default=Settings().seed)
    parser.add_argument("--peak-lr", type=float, default=Settings().peak_lr)
    parser.add_argument("--hold-out", type=int, nargs="*", default=[], metavar="FOLD", help=f"of {FOLDS} folds")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to start from")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    path = given.out / "checkpoint.pt"
    settings = Settings(steps=given.steps, seed=given.seed, peak_lr=given.peak_lr)
    trainer = Trainer.resume(path, given.device) if path.exists() else Trainer(settings, device=given.device)
    if given.start and trainer.step == 0:
        start = averaged(given.start).state_dict()
        trainer.network.load_state_dict(start)
        trainer.average.load_state_dict(start)
    parts: tuple[Part, ...] = ("train", "validation") if given.hold_out else ("train",)
    sampler = Sampler(records(parts, tuple(given.hold_out)), Noise.first_halves(), given.seed)
    checks = Sampler({db: load(db, "validation") for db in DATABASES}, None, 0)
    validation = [checks.batch(i) for i in range(12)]
    print(f"{sum(p.numel() for p in trainer.network.parameters()):,} parameters, from step {trainer.step}", flush=True)
    began, seen, mean = time.monotonic(), 0, dict[str, float]()
    while trainer.step < trainer.settings.steps:
        batch = sampler.batch(trainer.step)
        each = trainer.train(batch)
        seen += batch.ecg.size // MODEL_FS_HZ
        mean = {name: 0.99 * mean.get(name, loss) + 0.01 * loss for name, loss in each.items()}
        if trainer.step % 100 == 0:
            line = {"step": trainer.step, "elapsed_s": round(time.monotonic() - began), "ecg_s": seen}
            print(json.dumps(line | {name: round(loss, 4) for name, loss in mean.items()}), flush=True)
        if trainer.step % 500 == 0:
            judged = {name: round(loss, 4) for name, loss in trainer.judge(validation).items()}
            print(json.dumps({"validation": trainer.step} | judged), flush=True)
            trainer.save(path)
    trainer.save(path)


if __name__ == "__main__":
    main()
