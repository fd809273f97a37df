"""What people asked and what they were told, the newest `MAX_KEPT`."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from edge.errors import BadInputError
from edge.store.tables import question

MAX_KEPT = 5_000
MAX_QUESTION = 2_000
MAX_ANSWER_BYTES = 200_000


def keep(conn: Connection, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """Do what the control command `question` asks: `question`, `wearer` (or null) and `answer` (an object).

    Raises:
        BadInputError: anything else, or more than is kept.
    """
    text, wearer, answer = request.get("question"), request.get("wearer"), request.get("answer")
    if not isinstance(text, str) or not 0 < len(text) <= MAX_QUESTION:
        raise BadInputError(f"question must be text of 1 to {MAX_QUESTION} characters")
    if not isinstance(wearer, str | None) or len(wearer or "") > 64:
        raise BadInputError("wearer must be text of at most 64 characters")
    if not isinstance(answer, dict) or len(json.dumps(answer)) > MAX_ANSWER_BYTES:
        raise BadInputError(f"answer must be an object of at most {MAX_ANSWER_BYTES} bytes")
    values = {"asked_ns": now_ns, "wearer": wearer, "question": text, "answer": answer}
    new = int(conn.execute(insert(question).values(values).returning(question.c.id)).scalar_one())
    excess = int(conn.execute(select(func.count()).select_from(question)).scalar_one()) - MAX_KEPT
    if excess > 0:
        oldest = select(question.c.id).order_by(question.c.id).limit(excess)
        conn.execute(delete(question).where(question.c.id.in_(oldest)))
    return {"id": new}


def recent(conn: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the newest questions with their answers, newest first."""
    rows = conn.execute(select(question).order_by(question.c.id.desc()).limit(limit)).mappings()
    return [dict(row) for row in rows]
