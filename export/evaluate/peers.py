"""What a Python user could pick instead, on the same records and lead: `python -m export.evaluate --peers`.

Every peer runs as `bench/peer.py beats` in an environment of its own (made on the first call) on the first lead of
each record; what it finds is scored exactly as the encoder's beats are. Speed is ECG-seconds per CPU-second of the
process, without imports, model loading and reading, one thread where a package can be told so.

What a peer found depends on its packages and records only, so it is kept (`~/.cache/anyecg/peers`) and not run again
for new weights of ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES
from edge.encoder.session import Encoder
from edge.rhythm.rules import Rules
from export.datasets.folders import data_folder
from export.datasets.reader import load
from export.datasets.record import Record
from export.evaluate import beats as ec57
from export.evaluate.beats import Beats, figures
from export.evaluate.reading import read
from export.evaluate.report import unknown

PEERS = ("openvital", "openecg", "neurokit2", "neurokit2-peaks", "sleepecg", "xqrs")
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)
TIMEOUT_S = 3600.0
"""For one peer on all records."""

Counts = NDArray[np.int64]


def compare(encoders: Mapping[str, Encoder], names: Sequence[str], peers: Sequence[str] = PEERS) -> dict[str, Any]:
    """Return figures of encoders and peers on records of DS2, first lead, and notes on what was left out."""
    records = {record.name: record for record in load("mitdb", "test") if record.name in names}
    notes: list[str] = []
    tools = {}
    for name, encoder in encoders.items():
        tools[name] = _scored(*_ours(encoder, records), has_classes=True)
    python = _python(notes)
    for tool in peers:
        found = None if python is None else _peer(python, tool, sorted(records), notes)
        if found is not None:
            matrices = {
                name: matrix(records[name], np.array(one["at_s"]), one["labels"]) for name, one in found.items()
            }
            seconds, cpu_s = (sum(one[key] for one in found.values()) for key in ("seconds", "cpu_s"))
            classes = {label for one in found.values() for label in one["labels"] or ()}
            tools[tool] = _scored(matrices, seconds / cpu_s, has_classes=bool(classes), no_s="S" not in classes)
    return {"records": sorted(records), "tools": tools, "notes": notes}


def matrix(record: Record, at_s: NDArray[np.float64], labels: Sequence[str] | None) -> Counts:
    """Return the EC57 counts of beats found at `at_s`; without labels every beat counts as N."""
    order = np.argsort(at_s, kind="stable")
    label = np.zeros(at_s.size, dtype=np.int64)
    if labels is not None:
        label = np.array([BEAT_CLASSES.index(name) if name in BEAT_CLASSES else 0 for name in labels], dtype=np.int64)
    reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
    return ec57.matrix(reference, Beats(at_s[order], label[order]), unknown(record))


def _ours(encoder: Encoder, records: Mapping[str, Record]) -> tuple[dict[str, Counts], float]:
    """Return the counts of every record and the speed: preparation, encoder and rhythm session together."""
    out = {}
    seconds = cpu_s = 0.0
    for name, record in records.items():
        began = time.process_time()
        reading = read(encoder, "mitdb", name, (0,), Rules())
        cpu_s += time.process_time() - began
        seconds += record.seconds
        reference = Beats(record.beat_at.astype(np.float64) / 128, record.beat.astype(np.int64))
        out[name] = ec57.matrix(reference, reading.beats, unknown(record))
    return out, seconds / cpu_s


def _scored(each: Mapping[str, Counts], speed: float, *, has_classes: bool, no_s: bool = False) -> dict[str, Any]:
    def gross(names: Sequence[str]) -> dict[str, Any]:
        total = sum((each[name] for name in names), np.zeros((ec57.NONE + 1, ec57.NONE + 1), dtype=np.int64))
        return {
            "qrs": figures(ec57.qrs(total)),
            "V": figures(ec57.ventricular(total)) if has_classes else None,
            "S": figures(ec57.supraventricular(total)) if has_classes and not no_s else None,
        }

    return {
        "ecg_s_per_cpu_s": round(speed),
        "gross": gross(list(each)),
        "gross_without_232": gross([name for name in each if name != "232"]),
    }


def _python(notes: list[str]) -> Path | None:
    try:
        from bench.analyze import peer_python
    except ImportError:
        notes.append("the peers are run by bench/peer.py of the source tree, which is not here: no comparison")
        return None
    return peer_python(notes)


def _peer(python: Path, tool: str, names: Sequence[str], notes: list[str]) -> dict[str, Any] | None:
    """Return what one peer finds in all records, run where it is not known yet; None, and a note, if it cannot be."""
    script = Path(__file__).parents[2] / "bench" / "peer.py"
    kept = _kept(script, tool)
    paths = [str(data_folder() / "mitdb" / name) for name in names if not (kept / f"{name}.json").exists()]
    try:
        if paths:
            subprocess.run(
                [str(python), str(script), "beats", tool, str(kept), *paths],
                check=True,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                env={**os.environ, **ONE_THREAD},
            )
        return {name: json.loads((kept / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        notes.append(f"{tool} is left out: {said[-1][:200] if said else type(error).__name__}")
        return None


def _kept(script: Path, tool: str) -> Path:
    """Return the folder of a peer's results: another for other packages or another way of calling them."""
    from bench.analyze import PEER_PACKAGES

    made_of = "\n".join((*PEER_PACKAGES, script.read_text(encoding="utf-8")))
    key = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    return Path.home() / ".cache" / "anyecg" / "peers" / key / tool


def table(found: Mapping[str, Any]) -> str:
    """Return the comparison as a Markdown table with its notes."""
    lines = [
        f"{len(found['records'])} records of DS2 ({', '.join(found['records'])}), first lead, EC57. "
        "“–”: the tool does not give this class.",
        "",
        "| tool | QRS Se / PPV | V Se / PPV | V F1 | S Se / PPV | S F1 | ECG-s per CPU-s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, tool in found["tools"].items():
        gross = tool["gross"]
        cells = [_pair(gross["qrs"]), _pair(gross["V"]), _f1(gross["V"]), _pair(gross["S"]), _f1(gross["S"])]
        lines.append(f"| {name} | {' | '.join(cells)} | {tool['ecg_s_per_cpu_s']:,} |")
    return "\n".join([*lines, *(f"\nNote: {note}." for note in found["notes"])])


def _pair(score: Mapping[str, Any] | None) -> str:
    return "–" if score is None else f"{_show(score['se'])} / {_show(score['ppv'])}"


def _f1(score: Mapping[str, Any] | None) -> str:
    return "–" if score is None else _show(score["f1"])


def _show(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}" if value < 99 else f"{value:.2f}"
