"""Int8 weights: when they may ship, and that what is shipped still is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from encoder_kit import tiny_card

from edge.encoder.card import Card, shipped_card
from edge.encoder.library import INT8
from edge.encoder.session import Encoder
from edge.encoder.stride import LONG_HOPS, choose_stride

pytestmark = pytest.mark.export
pytest.importorskip("torch", reason="the export room needs torch: make test-export")
FIXTURE = Path(__file__).parent / "fixtures" / "encoder_parity.npz"


@pytest.fixture(scope="module")
def int8() -> Encoder:
    path = shipped_card().parent / INT8
    if not path.exists() or Card.load(path).checkpoint != Card.load().checkpoint:
        pytest.skip("no int8 form of the shipped checkpoint is shipped")
    return Encoder(Card.load(path), provider="cpu")


@pytest.mark.parametrize(
    ("speed_up", "losses", "same_bits", "ships", "why"),
    [
        (2.0, {"V": 0.3, "qrs": -1.0}, True, True, "2.00 times"),
        (1.49, {"V": 0.0}, True, False, "1.5 are wanted"),
        (2.0, {"V": 0.31, "qrs": 0.0}, True, False, "V 0.31"),
        (2.0, {"V": 0.0}, False, False, "bits"),
    ],
)
def test_what_int8_must_reach(
    speed_up: float, losses: dict[str, float], same_bits: bool, ships: bool, why: str
) -> None:
    from export.quantize import decide

    verdict = decide(speed_up, losses, same_bits=same_bits)
    assert verdict.ships is ships
    assert why in verdict.reason


def test_calibration_sees_training_records_only(ecg_data: Path) -> None:
    from export.quantize import training_windows

    if not (ecg_data / "cinc2017").is_dir() or not (ecg_data / "svdb").is_dir():
        pytest.skip("not every training set is here")
    windows = training_windows(12)
    assert len(windows) == 12
    assert all(window.ndim == 3 and window.shape[2] % 128 == 0 and window.dtype == np.float32 for window in windows)


def test_a_tiny_encoder_survives_quantization(tmp_path: Path) -> None:
    from export.quantize import apart, card_of, quantize

    source = tiny_card(tmp_path, seed=4)
    rng = np.random.default_rng(0)
    windows = [rng.normal(0, 0.3, (1, leads, 2560)).astype(np.float32) for leads in (1, 2, 1)]
    target = tmp_path / "tiny-int8.onnx"
    quantize(source.weights, target, windows)
    facts = card_of(
        Card(source.path, source.checkpoint, source.weights, source.sha256, {}, source.facts | {"limits": []}),
        target,
        {"validation_f1": {"int8": {}}},
    )
    target.with_suffix(".json").write_text(json.dumps(facts))
    small = Encoder(Card.load(target.with_suffix(".json")), provider="cpu")
    assert small.card.checkpoint == source.checkpoint
    gap = apart(Encoder(source, provider="cpu"), small, windows)
    assert 0 < gap["tokens"]["max"] < 0.2
    assert gap["beat"]["mean"] < 0.02


def test_shipped_int8_is_near_the_network_it_came_from(int8: Encoder) -> None:
    from export.quantize import apart

    with np.load(FIXTURE) as fixture:
        ecg = fixture["ecg"]
    gap = apart(Encoder(Card.load(), provider="cpu"), int8, [ecg])
    bounds = {"r_peak": 0.01, "beat": 0.03, "morphology": 0.03, "rhythm": 0.03, "quality": 0.03}
    bounds |= {"delineation": 0.03, "tokens": 0.1}
    assert {name: one["mean"] for name, one in gap.items() if one["mean"] > bounds[name]} == {}


@pytest.mark.parametrize("leads", [1, 2, 12])
def test_shipped_int8_gives_the_same_bits_in_long_windows(int8: Encoder, leads: int) -> None:
    stride = choose_stride(int8, leads=leads)
    assert stride.hops == LONG_HOPS, stride.reason
