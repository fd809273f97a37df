"""The JSON card beside every weights file: what it is, where it came from, and the hash it must have."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from edge.errors import AnyecgError

SHIPPED = "encoder.json"


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about one set of encoder weights."""

    path: Path
    checkpoint: str
    """Identity of the trained weights, shared by all precisions exported from them."""
    weights: Path
    sha256: str
    """Of the file at `weights`, lower-case hex."""
    thresholds: dict[str, float]
    """Scores above which a frame counts, chosen on training data only."""
    facts: dict[str, Any]
    """The whole card as read."""

    @classmethod
    def load(cls, path: Path | None = None) -> Card:
        """Read a card, without a path the shipped one; `AnyecgError` if it is missing or malformed.

        The path of weights (.onnx) means the card beside them.
        """
        path = shipped_card() if path is None else path
        path = path.with_suffix(".json") if path.suffix == ".onnx" else path
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise AnyecgError(f"no model card at {path}: reinstall anyecg-edge, or name a card that exists") from None
        except (OSError, ValueError) as error:
            raise AnyecgError(f"model card {path} cannot be read: {error}") from None
        try:
            return cls(
                path=path,
                checkpoint=str(facts["checkpoint"]),
                weights=path.parent / str(facts["file"]),
                sha256=str(facts["sha256"]).lower(),
                thresholds={str(name): float(value) for name, value in facts.get("thresholds", {}).items()},
                facts=facts,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AnyecgError(
                f"model card {path} is malformed ({type(error).__name__}: {error}); "
                "it needs checkpoint, file, sha256 and thresholds"
            ) from None

    def verified_weights(self) -> bytes:
        """Return the weights, read once and checked against the card; `AnyecgError` if they are not the card's."""
        try:
            weights = self.weights.read_bytes()
        except OSError as error:
            raise AnyecgError(f"weights {self.weights} named by {self.path} cannot be read: {error.strerror}") from None
        actual = hashlib.sha256(weights).hexdigest()
        if actual != self.sha256:
            raise AnyecgError(
                f"weights {self.weights} are not the ones of their card {self.path}: sha256 is {actual}, "
                f"the card says {self.sha256}; the file is damaged or was replaced, reinstall anyecg-edge"
            )
        return weights


def shipped_card() -> Path:
    """Path of the card that comes with the package."""
    return Path(str(resources.files("edge") / "models" / SHIPPED))
