"""The text around soft tokens: as trained, so as asked."""

from __future__ import annotations


def heads(ecgs: int) -> list[str]:
    """Return the text before each ECG."""
    if ecgs == 1:
        return ["ECG:"]
    return ["ECG 1:", *(f"\nECG {n}:" for n in range(2, ecgs + 1))]


def question_text(question: str) -> str:
    """Return the text between the last ECG and the answer."""
    return f"\nQ: {question}\nA:"
