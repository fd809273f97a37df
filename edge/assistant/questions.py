"""Files of localisation questions, in the format of `anyecg localize --questions`."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edge.errors import BadInputError

MAX_QUESTIONS = 100_000
NEEDED = ("db", "record", "start_sample", "end_sample", "label")


def load_questions(path: Path, labels: Collection[str], needed: Collection[str] = NEEDED) -> list[dict[str, Any]]:
    """Read a question file whose labels are among `labels`.

    Raises `BadInputError`, which names file, question and what is wrong with it.
    """
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"questions {path} cannot be read: {error}") from None
    if not isinstance(asked, list) or len(asked) > MAX_QUESTIONS:
        raise BadInputError(f"{path} is not a list of at most {MAX_QUESTIONS} questions")
    for n, one in enumerate(asked):
        if not isinstance(one, dict) or any(key not in one for key in needed):
            raise BadInputError(f"{path}: question {n} needs {', '.join(needed)}")
        if one["label"] not in labels:
            raise BadInputError(f"{path}: question {n} asks for {one['label']!r}; known are {', '.join(labels)}")
        if any(not isinstance(one[key], int) for key in ("start_sample", "end_sample")):
            raise BadInputError(f"{path}: question {n}: start_sample and end_sample must be whole numbers")
        if any(not isinstance(one[key], str) or ".." in one[key] for key in ("db", "record")):
            raise BadInputError(f"{path}: question {n}: db and record must be names")
    return asked
