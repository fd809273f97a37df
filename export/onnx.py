"""`python -m export.onnx --checkpoint FILE`: the trained network as ONNX, with its card and the parity fixture.

The graph takes and gives what `edge.encoder.contract` says: probabilities inside, NaN handled inside, dynamic batch,
leads and time, fp32, opset 17.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edge.encoder.contract import AHEAD_S, HOP_S, MODEL_FS_HZ, OUTPUTS, PAST_S, TOKEN_DIM
from export.datasets.reader import names
from export.encoder.calibrate import apply, choose
from export.encoder.network import Encoder, Probabilities
from export.encoder.train import averaged

OPSET = 17
MODELS = Path(__file__).parent.parent / "edge" / "models"
FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "encoder_parity.npz"

LIMITS = (
    "Research use only, not a medical device.",
    "Trained on a few dozen wearers with annotated beats; supraventricular beats are found far less reliably than "
    "ventricular ones.",
    "Paced rhythm was learnt from a dozen pacemakers; others may look different.",
    "Asystole was learnt from a handful of records and from synthetic flat lines.",
    "VT and VF come from one database of Holter tapes at 250 Hz, and from synthetic VF.",
    "Waves were delineated by one group of cardiologists on 10 s of rest (LUDB): intervals in noise, at high rates and "
    "under ectopic beats are less certain.",
    "AV block was hardly seen in training: blocked P waves of a large amplitude can be counted as V beats.",
)
CITATIONS = (
    "Moody GB, Mark RG. The impact of the MIT-BIH Arrhythmia Database. IEEE Eng Med Biol 20(3):45-50, 2001.",
    "Greenwald SD, Patil RS, Mark RG. Improved detection and classification of arrhythmias in noise-corrupted "
    "electrocardiograms using contextual information. Computers in Cardiology 17:461-464, 1990. (svdb, vfdb)",
    "Clifford GD et al. AF Classification from a Short Single Lead ECG Recording: the PhysioNet/Computing in "
    "Cardiology Challenge 2017. Computing in Cardiology 44, 2017.",
    "Moody GB, Muldrow WE, Mark RG. A noise stress test for arrhythmia detectors. Computers in Cardiology "
    "11:381-384, 1984. (nstdb)",
    "Kalyakulina AI et al. LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation Algorithms. "
    "IEEE Access 8:186181-186190, 2020.",
    "Wagner P et al. PTB-XL, a large publicly available electrocardiography dataset. Scientific Data 7:154, 2020.",
    "Goldberger AL et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220, 2000.",
)


def checkpoint_id(network: Encoder) -> str:
    """Return the identity of trained weights: 12 hex digits over every tensor's bytes."""
    digest = hashlib.blake2b(digest_size=6)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def export(network: Encoder, path: Path) -> None:
    """Write the network as ONNX with the contract's names and dynamic axes."""
    wrapped = Probabilities(network).eval()
    axes = {"ecg": {0: "batch", 1: "lead", 2: "time"}}
    axes |= {name: {0: "batch", 1: f"{name}_frame"} for name in OUTPUTS}
    with warnings.catch_warnings():
        # the tracing exporter is deprecated but keeps the plain graph that ONNX Runtime's blocked kernels take
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrapped,
            (torch.zeros(1, 2, 20 * MODEL_FS_HZ),),
            str(path),
            input_names=["ecg"],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamic_axes=axes,
            dynamo=False,
        )
    onnx.checker.check_model(str(path), full_check=True)


def example(seconds: int = 22) -> NDArray[np.float32]:
    """Return two leads of an ECG-like signal with noise, a missing span, a lost lead and a flat end, [1, 2, time]."""
    rng = np.random.default_rng(3)
    ecg = rng.normal(0, 0.02, (1, 2, seconds * MODEL_FS_HZ))
    width = np.hanning(13)
    for at in np.arange(40, ecg.shape[2] - 700, 100) + rng.integers(-8, 8):
        ecg[0, :, at : at + 13] += np.array([[1.0], [-0.6]]) * width
    ecg[0, 0, 900:1100] = np.nan
    ecg[0, 1, 1000:] = np.nan
    ecg[0, :, -600:] *= 0.05
    return ecg.astype(np.float32)


def fixture(network: Encoder, path: Path) -> None:
    """Store an input and what torch makes of it, for `make test` to compare ONNX Runtime with."""
    ecg = example()
    with torch.no_grad():
        said = Probabilities(network).eval()(torch.from_numpy(ecg))
    np.savez_compressed(path, ecg=ecg, **dict(zip(OUTPUTS, (x.numpy() for x in said), strict=True)))


def card(network: Encoder, weights: Path) -> dict[str, Any]:
    """Return what is known about the weights, trained on the training records."""
    trained: dict[str, Any] = {db: names(db, "train") for db in ("mitdb", "svdb", "vfdb")}
    return {
        "checkpoint": checkpoint_id(network),
        "what": "ECG encoder: beats, QRS morphology, P/QRS/T waves, rhythm and readability per frame, tokens for the "
        "assistant",
        "file": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "precision": "fp32",
        "parameters": sum(p.numel() for p in network.parameters()),
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "contract": {
            "fs_hz": MODEL_FS_HZ,
            "past_s": PAST_S,
            "hop_s": HOP_S,
            "ahead_s": AHEAD_S,
            "token_dim": TOKEN_DIM,
        },
        "trained_on": trained
        | {
            "ludb": "records whose number modulo 5 is not 0",
            "ptbxl": "folds 1 to 8 of records 1-500",
            "cinc2017": "records whose number modulo 5 is 3 or 4",
            "nstdb": "first halves of bw, em, ma, as noise",
        },
        "thresholds": {},
        "metrics": {},
        "limits": list(LIMITS),
        "licence": "Apache-2.0",
        "data_licence": "mitdb, svdb, vfdb, nstdb, ludb, cinc2017: Open Data Commons Attribution License v1.0; "
        "PTB-XL: CC BY 4.0",
        "citations": list(CITATIONS),
    }


def main() -> None:
    """Export a checkpoint; figures come from `python -m export.evaluate`, which writes them into the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of encoder.onnx and encoder.json")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    network = averaged(given.checkpoint)
    biases, gained = choose(averaged(given.checkpoint))
    apply(network, biases)
    print(gained)
    weights = given.out / "encoder.onnx"
    export(network, weights)
    found = card(network, weights) | {"calibration": gained}
    (given.out / "encoder.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.out.resolve() == MODELS.resolve():
        FIXTURE.parent.mkdir(parents=True, exist_ok=True)
        fixture(network, FIXTURE)
    print(f"{weights}: checkpoint {found['checkpoint']}, {weights.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
