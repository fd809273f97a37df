"""How fast the network runs on one thread, and how long one hop takes: both forms of the weights, this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.encoder.contract import MODEL_FS_HZ, PAST_S
from edge.encoder.session import Encoder
from edge.encoder.windows import AHEAD, HOP, PAST

LONG_S = 120
_LEAST_CPU_S = 6.0


def measure(encoders: Mapping[str, Encoder]) -> dict[str, Any]:
    """Return ECG-seconds per CPU-second in windows of two minutes (new seconds only) and CPU-ms of one live hop."""
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }
    for name, encoder in encoders.items():
        forms = {}
        for label, leads, samples in (
            ("long", 1, (LONG_S + PAST_S) * MODEL_FS_HZ + AHEAD),
            ("twelve", 12, (LONG_S + PAST_S) * MODEL_FS_HZ + AHEAD),
            ("hop", 1, PAST + HOP + AHEAD),
        ):
            ecg = rng.normal(0, 0.3, (1, leads, samples)).astype(np.float32)
            encoder.run(ecg)
            began, runs = time.process_time(), 0
            while time.process_time() - began < _LEAST_CPU_S / 3:
                encoder.run(ecg)
                runs += 1
            forms[label] = (time.process_time() - began) / runs
        out[name] = {
            "ecg_s_per_cpu_s": round((LONG_S + PAST_S) / forms["long"]),
            "new_ecg_s_per_cpu_s": round(LONG_S / forms["long"]),
            "lead_s_per_cpu_s_12_leads": round(12 * (LONG_S + PAST_S) / forms["twelve"]),
            "hop_cpu_ms": round(1000 * forms["hop"], 2),
        }
    return out


def table(found: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"One thread, {found['machine']}, load {found['load']} while measuring. “New” leaves out the 16 s of past that "
        "every window of two minutes reads again.",
        "",
        "| form | ECG-s per CPU-s | new | 12 leads, lead-s per CPU-s | CPU-ms of one live hop |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        if isinstance(one, dict):
            cells = (f"{one[key]:,}" for key in ("ecg_s_per_cpu_s", "new_ecg_s_per_cpu_s", "lead_s_per_cpu_s_12_leads"))
            lines.append(f"| {name} | {' | '.join(cells)} | {one['hop_cpu_ms']} |")
    return "\n".join(lines)
