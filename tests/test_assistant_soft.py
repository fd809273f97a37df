"""Soft tokens: frames of present leads, injection into llama.cpp, and who belongs to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encoder_kit import tiny_card
from look_kit import divergence, embedding_rows, random_card, write_random_adapter, write_small_base

from edge.assistant import beats
from edge.assistant.injection import Injection
from edge.assistant.look import Clip, Looker
from edge.assistant.merge import merged
from edge.assistant.model import LanguageModel
from edge.assistant.soft import FRAME, Projector, ProjectorCard, frames, places
from edge.assistant.wording import label_of
from edge.chunk import MISSING
from edge.encoder.contract import TOKEN_DIM
from edge.encoder.session import Encoder, Outputs
from edge.errors import AnyecgError, BadInputError

TEXT = "The rhythm of this ECG is"


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    with LanguageModel(threads=1, n_ctx=1024) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(tiny_card(tmp_path_factory.mktemp("encoder")), provider="cpu")


def signal(seconds: float, leads: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, (leads, round(seconds * 128))).astype(np.float32)


def test_text_rows_as_embeddings_are_token_ids(model: LanguageModel) -> None:
    injection = Injection(model.llama, model.module)
    tokens = injection.tokens(TEXT)
    injection.read(["ECG:"])
    as_ids = injection.logits(TEXT)
    injection.read(["ECG:", embedding_rows()[tokens]])
    as_rows = injection.logits("")
    assert np.array_equal(as_ids, as_rows)


def test_text_after_rows_is_read_as_after_text(model: LanguageModel) -> None:
    injection = Injection(model.llama, model.module)
    injection.read(["ECG:", embedding_rows()[injection.tokens(TEXT)]])
    after_rows = injection.logits("\nQ: Which?")
    injection.read(["ECG:" + TEXT])
    after_text = injection.logits("\nQ: Which?")
    assert divergence(after_text, after_rows) < 1e-6


def test_another_ecg_is_another_history(model: LanguageModel) -> None:
    injection = Injection(model.llama, model.module)
    rng = np.random.default_rng(2)
    one, other = (rng.normal(0, 0.1, (40, injection.width)).astype(np.float32) for _ in range(2))
    injection.read(["ECG:", one])
    first = injection.logits("\nA:")
    injection.read(["ECG:", other])
    assert not np.array_equal(injection.logits("\nA:"), first)
    injection.read(["ECG:", one])
    assert np.array_equal(injection.logits("\nA:"), first)
    model.write("Something else\nQ: why?\nA:", 'root ::= " " [a-z]+ "\\n"', 3)
    injection.read(["ECG:", one])
    assert np.array_equal(injection.logits("\nA:"), first), "what another question left behind was used"


def test_questions_do_not_see_one_another(model: LanguageModel) -> None:
    injection = Injection(model.llama, model.module)
    rows = np.random.default_rng(3).normal(0, 0.1, (20, injection.width)).astype(np.float32)
    grammar = 'root ::= " " [0-9.]+ "\\n"'
    injection.read(["ECG:", rows])
    alone = injection.answer("\nQ: When?\nA:", grammar, 8)
    injection.answer("\nQ: And the rate?\nA:", grammar, 8)
    assert injection.answer("\nQ: When?\nA:", grammar, 8) == alone


def test_what_does_not_fit_is_refused(model: LanguageModel) -> None:
    injection = Injection(model.llama, model.module)
    with pytest.raises(BadInputError, match="do not fit into the model's context of 1024"):
        injection.read([np.zeros((1000, injection.width), np.float32)], room=100)
    with pytest.raises(ValueError, match="embedding rows must be"):
        injection.read([np.zeros((5, 7), np.float32)])


def test_only_present_leads_make_soft_tokens(encoder: Encoder) -> None:
    ecg = signal(10)
    absent = np.concatenate([ecg, np.full((3, ecg.shape[1]), np.nan, np.float32)])
    assert np.array_equal(frames(encoder, ecg), frames(encoder, absent))


@pytest.mark.parametrize(("seconds", "tokens"), [(1.0, 4), (10.0, 40), (10.1, 41), (59.9, 240), (60.0, 240)])
def test_a_frame_for_every_quarter_of_a_second(encoder: Encoder, seconds: float, tokens: int) -> None:
    assert frames(encoder, signal(seconds)).shape == (tokens, FRAME)


def test_clips_that_cannot_be_read_say_why(encoder: Encoder) -> None:
    for seconds in (0.5, 61.0):
        with pytest.raises(BadInputError, match="1 to 60 s can"):
            frames(encoder, signal(seconds))
    with pytest.raises(BadInputError, match="nothing was recorded"):
        frames(encoder, np.full((1, 1280), np.nan, np.float32))


def test_millivolts_and_digital_samples_make_the_same_clip() -> None:
    rng = np.random.default_rng(4)
    samples = rng.integers(-1000, 1000, (2, 3600)).astype(np.int32)
    samples[1, 500:900] = MISSING
    signal_mv = np.where(samples == MISSING, np.nan, samples / 1000.0)
    a, b = Clip.of_samples(samples, [1.0, 1.0], 360.0), Clip.of_signal(signal_mv, 360.0)
    assert np.array_equal(a.ecg, b.ecg, equal_nan=True)
    assert a.length_s == 10.0


def with_beats(*seconds: float, length_s: float = 10.0) -> np.ndarray:
    found = np.zeros((round(4 * length_s), FRAME), np.float32)
    for at in seconds:
        token, bin_ = divmod(round(at * 32), 8)
        found[token, TOKEN_DIM + bin_] = 0.9
    return found


def test_places_are_beats_and_seconds_without_any() -> None:
    where = places(with_beats(0.5, 1.25, 2.0, 5.5), 10.0)
    assert [where.written(n, (3, 1)) for n in range(where.row.size)] == [
        *("0.0", "0.5", "1.3", "2.0", "3.0", "4.0", "5.0", "5.5", "7.0", "8.0", "9.0", "10.0;36;3;1")
    ]
    assert where.row.tolist() == [0, 3, 6, 9, 13, 17, 21, 23, 29, 33, 37, 41]
    assert where.nearest(5.3) == 7
    assert places(with_beats(0.5), 1.0).rate_bpm is None


def test_times_stand_behind_their_rows(tmp_path: Path) -> None:
    projector = Projector(random_card(tmp_path, "tiny-0"), "tiny-0")
    found = with_beats(0.5, 1.25, 2.0, length_s=3.0)
    rows, blind = projector(found, 3.0), projector(found, 3.0, blind=True)
    times = ["0.0", "0.5", "1.3", "2.0", "3.0;80;0;0"]
    soft = np.cumsum([0, *(1 + len(one) for one in times[:-1])])
    assert rows.shape[0] == sum(1 + len(one) for one in times)
    assert not blind[soft].any()
    assert np.array_equal(np.delete(rows, soft, axis=0), np.delete(blind, soft, axis=0))
    assert np.array_equal(rows[soft[1] + 1], rows[soft[0] + 1]), "the same character is the same row"


def test_measures_tell_a_wide_early_beat_of_another_shape() -> None:
    """Ten narrow beats, the sixth early, wide and upside down: no network needed to see it."""
    ecg = np.zeros((1, 10 * 128), np.float32)
    wave = np.zeros((1, 10 * 128, 4), np.float32)
    at_s = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.0, 6.5, 7.5, 8.5, 9.5])
    r_peak = np.zeros((1, 320), np.float32)
    for n, at in enumerate(at_s):
        half = 0.09 if n == 5 else 0.04
        t = np.arange(1280) / 128 - at
        ecg[0] += (-1.0 if n == 5 else 1.0) * np.maximum(1 - np.abs(t) / half, 0).astype(np.float32)
        wave[0, np.abs(t) < half, 2] = 1
        r_peak[0, int(at * 32)] = 1
    outputs = Outputs(r_peak, *(np.zeros(0, np.float32),) * 4, delineation=wave, tokens=np.zeros(0, np.float32))
    found = beats.find(r_peak[0])
    assert found.tolist() == (at_s * 32).astype(int).tolist()
    measured = beats.measure(outputs, ecg, found)
    usual = np.delete(measured, 5, axis=0)
    assert measured[5, 1] == pytest.approx(1.8, abs=0.1)  # QRS, 100 ms
    assert usual[:, 1] == pytest.approx(0.8, abs=0.1)
    assert measured[5, 7] == pytest.approx(np.log(0.5), abs=0.05)  # half of the usual RR before it
    assert measured[5, 11] < 0
    assert usual[:, 11].min() > 0.95
    assert measured[:, 16] == pytest.approx(0.8, abs=0.1)  # the clip's usual width
    assert not measured[:, 14:16].any()  # no lead is known by its name
    for column, name, sign in ((14, "V1", 1), (15, "aVL", 1)):
        named = beats.measure(outputs, sign * ecg, found, [name])
        assert (np.delete(named[:, column], 5) > 0.1).all()
        assert named[5, column] < -0.1
        assert not named[:, 29 - column].any()


def test_a_projector_refuses_a_foreign_encoder(tmp_path: Path, encoder: Encoder, model: LanguageModel) -> None:
    card = random_card(tmp_path, "another-encoder")
    with pytest.raises(BadInputError, match=r"trained on encoder another-encoder and cannot read the tokens of tiny-0"):
        Projector(card, encoder.card.checkpoint)
    with pytest.raises(BadInputError, match="cannot read the tokens"):
        Looker(model, encoder, card)
    rows = Projector(random_card(tmp_path, "tiny-0"), "tiny-0")(np.zeros((8, FRAME), np.float32), 2.0)
    assert rows.shape == (1 + 3 + 1 + 3 + 1 + 9, 576)  # 0.0, 1.0 without a beat, 2.0;0;0;0, times and numbers


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    card = random_card(tmp_path, "tiny-0")
    with (tmp_path / "projector.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(AnyecgError, match="is not the file its card names"):
        Projector(card, "tiny-0")
    (tmp_path / "projector.json").write_text("{}", encoding="utf-8")
    with pytest.raises(AnyecgError, match="lacks checkpoint, encoder"):
        ProjectorCard.load(tmp_path / "projector.json")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_base(tmp_path_factory.mktemp("base") / "small.gguf")


def test_merged_model_is_base_and_adapter(tmp_path: Path, small: Path) -> None:
    """The cached Q8_0 file says what llama.cpp says with the adapter, within quantisation noise; and not the base."""
    import llama_cpp

    card = random_card(tmp_path, "tiny-0", small)
    path = merged(small, card, tmp_path / "cache")
    given = {"merged": (path, None), "base": (small, None), "applied": (small, str(tmp_path / "adapter.gguf"))}
    said = {}
    for name, (file, lora) in given.items():
        llama = llama_cpp.Llama(str(file), lora_path=lora, n_ctx=64, n_threads=1, verbose=False)
        injection = Injection(llama, llama_cpp)
        injection.read([TEXT])
        said[name] = injection.logits(" a")
        llama.close()
    changed = divergence(said["applied"], said["base"])
    assert changed > 0.1
    assert divergence(said["applied"], said["merged"]) < changed / 10


def test_merging_is_done_once_and_checked(tmp_path: Path, small: Path) -> None:
    card = random_card(tmp_path, "tiny-0", small)
    (tmp_path / "cache").mkdir()
    before = tmp_path / "cache" / f"{small.stem}-before-Q8_0.gguf"
    other = tmp_path / "cache" / "other-before-Q8_0.gguf"
    before.touch()
    other.touch()
    path = merged(small, card, tmp_path / "cache")
    assert (before.exists(), other.exists()) == (False, True)
    made = path.stat().st_mtime_ns
    assert merged(small, card, tmp_path / "cache") == path
    assert path.stat().st_mtime_ns == made, "made again without need"
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"damaged")
    merged(small, card, tmp_path / "cache")
    assert path.stat().st_mtime_ns != made, "a damaged file was used"
    foreign = replace(card, facts=card.facts | {"base_sha256": "0" * 64, "checkpoint": "foreign"})
    with pytest.raises(BadInputError, match="trained on another model"):
        merged(small, foreign, tmp_path / "cache")
    write_random_adapter(tmp_path / "adapter.gguf", blocks=1)
    with pytest.raises(AnyecgError, match="is not the file its card names"):
        merged(small, card, tmp_path / "cache")


def test_looking_keeps_to_the_grammar(tmp_path: Path, encoder: Encoder, model: LanguageModel) -> None:
    """Even random soft tokens give spans within the clip, a report that can be read, and nothing else."""
    looker = Looker(model, encoder, random_card(tmp_path, "tiny-0"))
    clip = Clip(signal(6))
    spans = looker.spans(clip, "PVC")
    assert spans is not None
    assert all(0 <= start < end <= 6 for start, end in spans)
    assert looker.report(clip).endswith(".")
    assert looker.tell([clip, Clip(signal(3))], "Which is longer?")
    with pytest.raises(BadInputError, match="5 ECGs cannot be compared"):
        looker.tell([clip] * 5, "Which is longer?")
    assert all(0 <= a < b <= 6 for a, b in looker.localize(signal(6), 128.0, ["I", "II"], "pvc"))
    assert json.dumps(looker.describe(signal(6), 128.0, ["I", "II"]))


def test_labels_are_known_by_their_rules() -> None:
    assert [label_of(name) for name in ("pvc", "sve", "lbbb", "AF", "noise", "unreadable")] == [
        *("PVC", "SVPB", "LBBB", "AF", "noise", "noise")
    ]
    with pytest.raises(BadInputError, match="'t_wave' cannot be marked; known labels are PVC"):
        label_of("t_wave")
