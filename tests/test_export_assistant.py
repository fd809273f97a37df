"""Training the assistant: facts and questions of clips, packed rows, curriculum, and torch against llama.cpp."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from look_kit import divergence, sha256, write_small_base

from edge.assistant.beats import MEASURES
from edge.assistant.injection import Injection
from edge.assistant.merge import merged
from edge.assistant.model import find_model
from edge.assistant.prompts import question_text
from edge.assistant.soft import FRAME, LABELS, PEAKS, Projector, ProjectorCard, counts_of, interleaved, places
from edge.encoder.contract import BEAT_CLASSES, MORPHOLOGIES, RHYTHMS, TOKEN_DIM
from export import gguf as files
from export.assistant import align, planning
from export.assistant.corpus import Clip, Clips, Row, describe, row
from export.assistant.facts import Facts, facts_of
from export.assistant.language import Base, Language, read_base
from export.assistant.projector import Projector as Network
from export.assistant.projector import Shape, told
from export.assistant.reading import half_of, heads_of, judged, readings, say, train
from export.assistant.rows import Packed, Seen, pack, sequence
from export.assistant.tasks import NEAR, TASKS, about_one, compare, report
from export.assistant.train import ALL, REPORTS, Batches, Settings, Stage, Tokenizer, Trainer, read_weights
from export.datasets.record import UNKNOWN
from export.encoder.batch import Crop

pytestmark = pytest.mark.export


def crop(kinds: str, every: int = 128, shape: str = "narrow", rhythm: str = "N") -> Crop:
    """Return a crop with a beat every second, classes as written."""
    at = 64 + every * np.arange(len(kinds), dtype=np.float32)
    seconds = int(at[-1] // 128) + 1
    return Crop(
        ecg=np.zeros((2, seconds * 128), dtype=np.float32),
        beat_at=at,
        beat=np.array([BEAT_CLASSES.index(kind) for kind in kinds], dtype=np.int8),
        morphology=np.array([MORPHOLOGIES.index("other" if k == "V" else shape) for k in kinds], dtype=np.int8),
        beats_known=np.ones(seconds, dtype=bool),
        rhythm=np.full(seconds, RHYTHMS.index(rhythm), dtype=np.int8),
        quality=np.ones(seconds, dtype=np.int8),
        wave=np.full(seconds * 128, UNKNOWN, dtype=np.int8),
    )


def fact(kinds: str, **given: object) -> Facts:
    made = crop(kinds, **given)  # type: ignore[arg-type]
    return facts_of(made, "mitdb", "x", float(made.rhythm.size))


def some_clips(count: int = 12) -> Clips:
    rng = np.random.default_rng(0)
    kinds = ("NNNVNNNNNN", "NNNNNNNNNN", "NVNVNVNNNN", "NNSNNNNNNN")
    facts = [replace(fact(kinds[n % 4]), record=f"{100 + n % 2}") for n in range(count)]
    frames = rng.normal(0, 1, (count * 40, FRAME)).astype(np.float16)
    for n, one in enumerate(facts):
        with_beats(frames[40 * n : 40 * (n + 1)], one)
    return Clips(frames, 40 * np.arange(1, count + 1), facts)


def with_beats(frames: np.ndarray, facts: Facts) -> np.ndarray:
    """Let the frames' R-peak scores show the beats of the facts."""
    frames[:, TOKEN_DIM : TOKEN_DIM + PEAKS] = 0
    for at in facts.beat_at:
        token, bin_ = divmod(int(at * 32), PEAKS)
        frames[token, TOKEN_DIM + bin_] = 0.9
    return frames


def clip_of(facts: Facts) -> Clip:
    return Clip.of(with_beats(np.zeros((40, FRAME), np.float16), facts), facts)


def test_facts_follow_the_annotations() -> None:
    found = fact("NNNVNNSNNN")
    assert found.spans["PVC"] == [(2.5, 4.5)]
    assert found.spans["SVPB"] == [(5.5, 7.5)]
    assert found.spans["LBBB"] == found.spans["bigeminy"] == found.spans["pause"] == []
    assert (found.rate_bpm, found.rhythm, found.pvcs, found.svpbs) == (60, "N", 1, 1)
    assert (found.conduction, found.quality) == ("narrow", "good")
    assert fact("VNNNNNNNNV").spans["PVC"] == [(0.0, 1.5), (8.5, 10.0)]
    assert fact("NVNVNVNNNN").spans["bigeminy"] == [(0.5, 6.5)]
    assert fact("NNNNN", every=320).spans["pause"] == [(0.5, 3.0), (3.0, 5.5), (5.5, 8.0), (8.0, 10.5)]
    assert fact("NNNNNNNNNN", shape="LBBB").spans["LBBB"] == [(0.0, 10.0)]


def test_what_is_unknown_is_not_absent() -> None:
    made = crop("NNNVNNNNNN")
    made.beats_known[4] = False
    made.rhythm[:] = UNKNOWN
    found = facts_of(made, "mitdb", "x", 10.0)
    assert not {"PVC", "LBBB", "AF", "VT", "pause"} & found.spans.keys()
    assert found.spans["noise"] == []
    assert found.rhythm is None
    assert report(random.Random(1), found) == ""


def test_every_question_has_the_answer_of_the_facts() -> None:
    rng = random.Random(3)
    for kinds in ("NNNVNNNNNN", "NNNNNNNNNN", "NVNVNVNNNN", "NNSNNNNNNN"):
        found = fact(kinds)
        for _ in range(40):
            for item in about_one(rng, found, TASKS, 8):
                if item.task == "localise":
                    spans = [] if item.answer == " none\n" else item.answer.split()
                    assert [tuple(map(float, one.split("-"))) for one in spans] == found.spans[item.label]
                if item.task == "present":
                    assert item.answer.strip() == ("Yes" if found.spans[item.label] else "No")
                if item.task == "count":
                    assert int(item.answer) == (found.pvcs if item.label == "PVC" else found.svpbs)
                assert item.answer.startswith(" ")
                assert item.answer.endswith("\n")


def test_comparisons_follow_the_facts() -> None:
    slow, fast = fact("NNNNNN", every=160), fact("NNNVNNNNNN")
    said = {item.question: item.answer for n in range(60) for item in compare(random.Random(n), [slow, fast], 9)}
    for question, answer in said.items():
        if "highest" in question or "fastest" in question:
            assert answer == " ECG 2\n"
        if question.startswith("Compare ECG 1"):
            assert answer == " Rate up from 48 to 60 bpm; PVCs from 0 to 1\n"
    assert len(said) > 20


def test_spans_are_told_from_place_to_place() -> None:
    found = clip_of(fact("NNNVNNNNNN"))
    assert [one / 10 for one in found.places.tenths] == [0.0, *(n + 0.5 for n in range(10)), 10.0]
    assert found.facts.spans["PVC"] == [(2.5, 4.5)]
    late = Clip.of(found.frames, replace(found.facts, spans={"AF": [(2.0, 7.9)], "VT": [(9.9, 10.0)]}))
    assert late.facts.spans == {"AF": [(1.5, 7.5)], "VT": [(9.5, 10.0)]}


def test_alignment_marks_the_rows_of_beats_and_spans() -> None:
    wanted = align.targets([clip_of(fact("NNNVNNNNNN"))], 42)
    pvc = wanted.flags[0, :, LABELS.index("PVC")]
    assert torch.nonzero(pvc[:, 0]).flatten().tolist() == [11]  # 2.5 s: the eleventh quarter, after the first row
    assert torch.nonzero(pvc[:, 1]).flatten().tolist() == [19]
    assert torch.nonzero(pvc[:, 2]).flatten().tolist() == list(range(11, 20))
    assert torch.nonzero(wanted.kind[0, :, 0] == 1).flatten().tolist() == [15]
    assert int((wanted.beat == 1).sum()) == 10
    whole = align.targets([clip_of(fact("NNNNNNNNNN", shape="LBBB"))], 42).flags[0, :, LABELS.index("LBBB")]
    assert bool((whole[:42, 2] == 1).all())
    assert (whole[0, 0], whole[41, 1]) == (1, 1)


def test_planning_questions_are_plans() -> None:
    from edge.assistant.plan import Marked, parse_line

    for prompt, said in planning.pairs(1, 2, 3, 300):
        question = prompt.split("Q: ")[1]
        times = tuple(f"time {n}" for n in range(1, 10) if f"(t{n}: " in question)
        names = tuple(f"name {n}" for n in range(1, 10) if f"(w{n}: " in question)
        context = ()
        if "\nC: " in prompt:
            before = prompt.split("C: ")[1].split("\n")[0].replace("t0", "t1")
            context = parse_line(before, Marked("", ("before",), ()))
        assert parse_line(said, Marked("", times, names), context) or said == " none\n"


def test_the_data_set_is_described() -> None:
    told = describe(some_clips(), 50)
    assert told["source"] == {"mitdb": 12}
    assert set(told["tasks"]) <= set(TASKS)
    assert told["wording"]["different questions"] > 50


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "small.gguf")


@pytest.fixture(scope="module")
def shallow(small: Path) -> Base:
    """Return the base with two blocks: quick."""
    return read_base(small)


@pytest.fixture(scope="module")
def tokenize() -> Tokenizer:
    return Tokenizer(find_model())


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seen_by(network: Network, found: Clips) -> list[Seen]:
    """Return what untrained heads say of clips."""
    return say(network.heads, [found[n] for n in range(len(found))])


def test_questions_of_a_row_do_not_see_one_another(shallow: Base, tokenize: Tokenizer) -> None:
    found = some_clips()
    trainer = Trainer(shallow, [Stage("all", 1, TASKS)], Settings(rank=2))
    trainer.language = Language(shallow, 2, torch.float32)
    clip, seen = found[0], seen_by(trainer.projector, found)[:1]
    items = tuple(about_one(random.Random(5), clip.facts, TASKS, 4))
    together = pack([sequence(Row((0,), (clip,), items), seen, tokenize)])
    apart = [pack([sequence(Row((0,), (clip,), (item,)), seen, tokenize)]) for item in items]

    def logits(batch: Packed) -> torch.Tensor:
        with torch.no_grad():
            x = trainer.language.embed(batch.ids).clone()
            x[batch.soft] = trainer.projector(batch.said, batch.ended, batch.tenths, batch.last)
            hidden = trainer.language(x, batch.position, batch.mask)
            return trainer.language.logits(hidden[batch.predict])

    assert torch.equal(together.target, torch.cat([one.target for one in apart]))
    assert torch.allclose(logits(together), torch.cat([logits(one) for one in apart]), atol=1e-3)


def test_a_resumed_training_continues_as_if_unbroken(
    shallow: Base, tokenize: Tokenizer, tmp_path: Path, one_thread: None
) -> None:
    stages = [Stage("reports", 2, REPORTS, lora=False), Stage("all", 2, ALL, compare=0.3, planning=0.3)]
    settings = Settings(rank=2, tokens=300)
    found = some_clips()

    def run(trainer: Trainer, until: int) -> list[float]:
        batches = Batches(found, [seen_by(trainer.projector, found)], tokenize, settings)
        losses = []
        for n in range(2 * trainer.stage + trainer.step, until):
            trainer.stage, trainer.step = divmod(n, 2)
            losses.append(sum(trainer.train(batches.of(trainer.now, trainer.step)).values()))
        return losses

    whole = Trainer(shallow, stages, settings)
    unbroken = run(whole, 4)
    first = Trainer(shallow, stages, settings)
    begun = run(first, 3)
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(shallow, stages, settings)
    second.load(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert begun + run(second, 4) == unbroken
    assert all(torch.equal(weights, whole.average[name]) for name, weights in second.average.items())
    second.write_weights(tmp_path / "start.npz")
    third = Trainer(shallow, stages, settings)
    third.begin_with(read_weights(tmp_path / "start.npz"))
    assert all(torch.allclose(p, whole.average[name], atol=1e-3) for name, p in third.average.items())


def test_heads_are_judged_and_kept_apart_by_people(one_thread: None) -> None:
    found = some_clips()
    half = half_of(found)
    assert set(half.tolist()) == {0, 1}
    assert all(len({int(half[n]) for n in clips}) == 1 for clips in found.by_record.values())
    shape = Shape(hidden=16, measured=8)
    heads = [train(found, np.flatnonzero(half != k).tolist(), shape, 2, 1, found) for k in (0, 1)]
    seen = readings(found, heads, half)
    n = int(np.flatnonzero(half == 1)[0])
    assert np.allclose(seen[n].said, say(heads[1], [found[n]])[0].said, atol=2e-2)
    assert not np.allclose(seen[n].said, say(heads[0], [found[n]])[0].said, atol=1e-4)
    assert set(judged(heads[0], found)) == set(NEAR)


def test_bundle_branches_are_read_from_measures_alone() -> None:
    torch.manual_seed(1)
    heads = heads_of(Shape(hidden=16, measured=8)).eval()
    frames = torch.randn(1, 12, FRAME)
    other = frames.clone()
    other[..., : FRAME - MEASURES] += 1
    with torch.no_grad():
        a, b = heads(frames, torch.tensor([12])), heads(other, torch.tensor([12]))
    for label, column in (("LBBB", 2), ("RBBB", 3)):
        assert torch.equal(a.flags[:, :, LABELS.index(label)], b.flags[:, :, LABELS.index(label)])
        assert torch.equal(a.kind[..., column], b.kind[..., column])
    assert not torch.equal(a.flags[:, :, LABELS.index("PVC")], b.flags[:, :, LABELS.index("PVC")])


def test_projector_and_lora_in_llama_cpp_are_those_of_torch(shallow: Base, small: Path, tmp_path: Path) -> None:
    """Exported and merged as the gateway does, against torch in float32, within quantisation noise."""
    import llama_cpp

    torch.manual_seed(1)
    network = Network(Shape(scale=float(shallow.tensors["token_embd.weight"].std()))).eval()
    language = Language(shallow, 4, torch.float32)
    with torch.no_grad():
        for name, parameter in language.named_parameters():
            if ".b." in name:
                parameter.normal_(0, 0.8)
    checkpoint = {
        "shape": network.shape.as_dict(),
        "projector": network.state_dict(),
        "lora": language.state_dict(),
        "stages": [],
        "settings": {},
        "stage": 0,
        "step": 0,
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pt")
    card = ProjectorCard.load(files.export(tmp_path / "checkpoint.pt", "tiny-0", small, tmp_path, {}))
    assert card.facts["base_sha256"] == sha256(small)
    assert max(path.stat().st_size for path in tmp_path.glob("*.*") if path.suffix in (".onnx", ".gguf")) < 20e6
    frames = np.random.default_rng(1).normal(0, 1, (41, FRAME)).astype(np.float32)
    where = places(frames, 10.1)
    projector = Projector(card, "tiny-0")
    soft = projector(frames, 10.1)
    with torch.no_grad():
        row, length = torch.from_numpy(where.row), torch.tensor([41])
        said, ended = told(network.heads(torch.from_numpy(frames)[None], length), length, row[None])
        ended_of_each = ended.expand(row.shape[0], -1)
        seen = network(said[0], ended_of_each, torch.from_numpy(where.tenths), row == 42)
    mine = interleaved(seen.numpy(), files.mark_rows(small), where, counts_of(said[0].numpy()), written=True)
    assert np.abs(soft - mine).max() < 1e-4
    llama = llama_cpp.Llama(str(merged(small, card, tmp_path)), n_ctx=512, n_threads=1, verbose=False)
    plain = llama_cpp.Llama(str(small), n_ctx=512, n_threads=1, verbose=False)
    said = {}
    for name, one in (("merged", llama), ("base", plain)):
        injection = Injection(one, llama_cpp)
        injection.read(["ECG:", soft])
        said[name] = injection.logits(question_text("Where is the PVC?"))
        head, asked = injection.tokens("ECG:"), injection.tokens(question_text("Where is the PVC?"))
        one.close()
    with torch.no_grad():
        rows = torch.from_numpy(mine)
        x = torch.cat([language.embed(torch.tensor(head)), rows, language.embed(torch.tensor(asked))])[None]
        size = x.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool).tril()[None, None]
        hidden = language(x, torch.arange(size)[None], mask)
        said["torch"] = language.logits(hidden[0, -1]).numpy()
    changed = divergence(said["torch"], said["base"])
    assert changed > 0.03
    assert divergence(said["torch"], said["merged"]) < changed / 10


def test_rows_of_several_ecgs_are_drawn() -> None:
    found = some_clips()
    made = [row(found, 1, n, ("compare", *TASKS), 5, 1) for n in range(40)]
    assert any(one is not None and len(one.clips) > 1 for one in made)
    assert all(isinstance(one.clips[0], Clip) for one in made if one is not None)
