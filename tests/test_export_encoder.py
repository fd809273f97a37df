"""The network keeps the contract, ONNX Runtime says what torch says, and a training can be interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-export)")

from edge.encoder.contract import MODEL_FS_HZ, OUTPUTS, OUTPUTS_HZ, RHYTHMS  # noqa: E402
from export import onnx as exporter  # noqa: E402
from export.datasets.record import Record  # noqa: E402
from export.encoder.batch import Batch, Sampler  # noqa: E402
from export.encoder.network import Encoder, Probabilities, Shape  # noqa: E402
from export.encoder.spoil import Noise  # noqa: E402
from export.encoder.train import Settings, Trainer  # noqa: E402

pytestmark = pytest.mark.export


def _network(seed: int) -> Encoder:
    torch.manual_seed(seed)
    network = Encoder()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.3, 1)
    return network.eval()


def _signal(seconds: int, leads: int = 1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, leads, seconds * MODEL_FS_HZ, generator=generator)


@torch.no_grad()
def _said(network: Encoder, ecg: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(OUTPUTS, Probabilities(network)(ecg), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_onnx_runtime_equals_torch_for_any_batch_leads_and_length(seed: int, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    network = _network(seed)
    exporter.export(network, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    for batch, leads, seconds in ((1, 1, 21), (3, 1, 5), (2, 12, 8), (1, 2, 64)):
        ecg = np.random.default_rng(batch).normal(0, 1, (batch, leads, seconds * MODEL_FS_HZ)).astype(np.float32)
        ecg[0, 0, 100:400] = np.nan
        ecg[-1, :, -300:] = np.nan
        got = session.run(list(OUTPUTS), {"ecg": ecg})
        wanted = _said(network, torch.from_numpy(ecg))
        for name, values in zip(OUTPUTS, got, strict=True):
            assert values.shape[:2] == (batch, seconds * OUTPUTS_HZ[name])
            assert np.isfinite(values).all()
            np.testing.assert_allclose(values, wanted[name].numpy(), atol=2e-4, err_msg=name)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hop_sees_no_further_than_the_contract(seed: int) -> None:
    network = _network(seed)
    start, end, past_s, ahead_s = 18, 20, 15, 2
    ecg = _signal(30)
    other = _signal(30, seed=9) * 5
    other[..., (start - past_s) * MODEL_FS_HZ : (end + ahead_s) * MODEL_FS_HZ] = ecg[
        ..., (start - past_s) * MODEL_FS_HZ : (end + ahead_s) * MODEL_FS_HZ
    ]
    one, two = _said(network, ecg), _said(network, other)
    for name in OUTPUTS:
        kept = slice(start * OUTPUTS_HZ[name], end * OUTPUTS_HZ[name])
        torch.testing.assert_close(one[name][:, kept], two[name][:, kept], rtol=0, atol=1e-5)
        assert not torch.allclose(one[name], two[name], atol=1e-3)


def test_the_network_is_shift_equivariant() -> None:
    network = _network(3)
    ecg = _signal(50, leads=2)
    ecg[0, 1, 2000:2300] = float("nan")
    later = ecg[..., 7 * MODEL_FS_HZ :]
    one, two = _said(network, ecg), _said(network, later)
    for name in OUTPUTS:
        a = one[name][:, 23 * OUTPUTS_HZ[name] : 48 * OUTPUTS_HZ[name]]
        b = two[name][:, 16 * OUTPUTS_HZ[name] : 41 * OUTPUTS_HZ[name]]
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_missing_leads_change_nothing() -> None:
    network = _network(4)
    ecg = _signal(24)
    with_dead = torch.cat([torch.full_like(ecg, float("nan")), ecg, torch.full_like(ecg, float("nan"))], dim=1)
    one, two = _said(network, ecg), _said(network, with_dead)
    for name in OUTPUTS:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-4)


def test_a_recordings_start_is_like_padding() -> None:
    """Missing signal before the first sample is no past of its own: only the stem sees the edge, faintly."""
    network = _network(5)
    ecg = _signal(24)
    missing = torch.full((1, 1, 8 * MODEL_FS_HZ), float("nan"))
    one, two = _said(network, ecg), _said(network, torch.cat([missing, ecg], dim=2))
    for name in ("rhythm", "tokens"):
        torch.testing.assert_close(
            one[name][:, 2 * OUTPUTS_HZ[name] :], two[name][:, 10 * OUTPUTS_HZ[name] :], rtol=0, atol=0.1
        )


def _records() -> dict[str, list[Record]]:
    """Two synthetic recordings: normal beats and wide, inverted, early ones; a flat end."""
    rng = np.random.default_rng(0)
    found = []
    for name in ("a", "b"):
        seconds = 90
        ecg = rng.normal(0, 0.02, (2, seconds * MODEL_FS_HZ)).astype(np.float32)
        at = np.arange(60, 70 * MODEL_FS_HZ, 100, dtype=np.float32)
        label = (rng.random(at.size) < 0.3).astype(np.int8) * 2
        for position, beat in zip(at.astype(int), label, strict=True):
            width = 31 if beat else 11
            start = max(position - width // 2, 0)
            shape = np.hanning(width)[: ecg.shape[1] - start] * (-1.2 if beat else 1.0)
            ecg[:, start : start + shape.size] += shape
        rhythm = np.zeros(seconds, dtype=np.int8)
        rhythm[72:] = RHYTHMS.index("ASYS")
        found.append(
            Record(
                *("mitdb", name, ecg, at, label, np.where(label == 2, 4, 0).astype(np.int8)),
                beats_known=np.ones(seconds, dtype=bool),
                rhythm=rhythm,
                quality=np.ones(seconds, dtype=np.int8),
            )
        )
    return {"mitdb": found}


def _noise() -> Noise:
    return Noise((np.random.default_rng(1).normal(0, 0.2, (2, 60 * MODEL_FS_HZ)).astype(np.float32),))


def _small(batch: Batch) -> Batch:
    keep = slice(0, 3)
    targets = type(batch.targets)(*(getattr(batch.targets, name)[keep] for name in type(batch.targets).__slots__))
    return Batch(batch.ecg[keep], targets)


TINY = Shape(stem=(8, 8, 16), middle=16, decoder=(16, 8), past_dilations=(1, 2))


def test_training_lowers_the_loss_and_resumes_bit_exactly(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sampler = Sampler(_records(), _noise())
        trainer = Trainer(Settings(steps=40, warm_up=5, peak_lr=5e-3), TINY)
        first = trainer.train(_small(sampler.batch(0)))
        for step in range(1, 20):
            trainer.train(_small(sampler.batch(step)))
        trainer.save(tmp_path / "checkpoint.pt")
        for step in range(20, 40):
            last = trainer.train(_small(sampler.batch(step)))
        resumed = Trainer.resume(tmp_path / "checkpoint.pt")
        again = Sampler(_records(), _noise())
        for step in range(resumed.step, 40):
            repeated = resumed.train(_small(again.batch(step)))
    finally:
        torch.set_num_threads(threads)
    assert sum(last.values()) < 0.8 * sum(first.values())
    assert repeated == last
    for one, two in zip(trainer.average.state_dict().values(), resumed.average.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_unknown_labels_teach_nothing() -> None:
    """A batch without a single label has no loss and no gradient."""
    batch = _small(Sampler(_records(), None).batch(0))
    for name in ("beat", "morphology", "rhythm", "quality", "token", "wave"):
        getattr(batch.targets, name)[:] = -1
    batch.targets.r_peak_mask[:] = 0
    trainer = Trainer(Settings(), TINY)
    assert set(trainer.train(batch).values()) == {0.0}
    assert all(float(p.grad.abs().sum()) == 0 for p in trainer.network.parameters() if p.grad is not None)


def test_batches_depend_on_seed_and_step_alone() -> None:
    one, two = Sampler(_records(), _noise(), seed=4), Sampler(_records(), _noise(), seed=4)
    one.batch(0)
    assert np.array_equal(one.batch(7).ecg, two.batch(7).ecg, equal_nan=True)
    assert not np.array_equal(one.batch(7).ecg[0, 0, :100], one.batch(8).ecg[0, 0, :100], equal_nan=True)


def test_targets_mark_every_beat_where_it_is() -> None:
    (record, _) = _records()["mitdb"]
    batch = Sampler({"mitdb": [record]}, None).batch(2)
    assert batch.ecg.shape[0] == batch.targets.r_peak.shape[0]
    top = batch.targets.r_peak[:, 1:-1]
    is_peak = (top > 0.6) & (top >= batch.targets.r_peak[:, :-2]) & (top > batch.targets.r_peak[:, 2:])
    rows, frames = np.nonzero(is_peak)
    assert rows.size > 50
    assert (batch.targets.beat[rows, frames + 1] >= 0).mean() > 0.95
    assert set(np.unique(batch.targets.beat)) <= {-1, 0, 2}
