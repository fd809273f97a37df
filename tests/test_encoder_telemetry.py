"""Nothing leaves the home: ONNX Runtime's own telemetry stays off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOAD = """
import numpy as np
from edge.encoder.card import Card
from edge.encoder.session import Encoder
Encoder(Card.load(), provider="cpu").run(np.zeros((1, 1, 128 * 21), np.float32))
"""


def left_behind(home: Path) -> list[Path]:
    """Score one window in a process of its own; return the files it leaves in its home."""
    own = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    homes = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", LOAD], env=own | homes, check=True, timeout=60)
    return [path for path in home.rglob("*") if path.is_file()]


def test_the_encoder_keeps_no_events_for_anybody(tmp_path: Path) -> None:
    """With telemetry on, 1.32 makes a device id and a database of events in the cache folder at import."""
    assert left_behind(tmp_path) == []
