"""Weights are only loaded when they are the ones of their card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from encoder_kit import tiny_card

from edge.encoder.card import Card
from edge.encoder.session import Encoder
from edge.errors import AnyecgError


def test_card_tells_what_it_names(tmp_path: Path) -> None:
    card = tiny_card(tmp_path, seed=3)
    assert card.checkpoint == "tiny-3"
    assert card.thresholds == {"r_peak": 0.5}
    assert card.verified_weights() == (tmp_path / "tiny.onnx").read_bytes()


def test_one_changed_bit_is_refused(tmp_path: Path) -> None:
    card = tiny_card(tmp_path)
    weights = bytearray(card.weights.read_bytes())
    weights[len(weights) // 2] ^= 1
    card.weights.write_bytes(weights)
    with pytest.raises(AnyecgError, match=r"tiny\.onnx are not the ones of their card.*sha256 is .*the card says"):
        Encoder(card)


def test_missing_weights_name_the_file(tmp_path: Path) -> None:
    card = tiny_card(tmp_path)
    card.weights.unlink()
    with pytest.raises(AnyecgError, match=r"tiny\.onnx named by .* cannot be read: No such file"):
        Encoder(card)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no model card at"),
        ("{", "cannot be read"),
        ("[]", "malformed"),
        ('{"checkpoint": "a", "sha256": "b"}', "malformed"),
        ('{"checkpoint": "a", "file": "f", "sha256": "b", "thresholds": {"x": "high"}}', "malformed"),
        ('{"checkpoint": "a", "file": "f", "sha256": "b", "thresholds": [1]}', "malformed"),
    ],
)
def test_bad_card_is_explained(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(AnyecgError, match=message):
        Card.load(path)


def test_a_network_without_all_outputs_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(AnyecgError, match="lack the outputs quality: they are not an encoder"):
        Encoder(tiny_card(tmp_path, leave_out="quality"))


def test_facts_are_kept_whole(tmp_path: Path) -> None:
    card = tiny_card(tmp_path)
    assert card.facts == json.loads(card.path.read_text(encoding="utf-8"))
