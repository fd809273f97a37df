"""Where recordings lie that are no wearer's: public databases, laid out as on PhysioNet (`mitdb/100.dat`)."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder() -> Path:
    """Return `$ECG_DATA`, or `~/.cache/anyecg/data` where it is unset or empty."""
    return Path(os.environ.get("ECG_DATA") or Path.home() / ".cache" / "anyecg" / "data")
