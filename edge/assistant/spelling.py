"""Typing errors in the words that matter: only those are corrected, everything else is left alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

_SHORT = {
    "nite": "night", "nites": "nights", "lst": "last", "lats": "last", "yday": "yesterday", "ystrday": "yesterday",
    "tdy": "today", "2day": "today", "hw": "how", "hwo": "how", "wht": "what", "waht": "what", "wich": "which",
    "mnay": "many", "mny": "many", "avg": "average", "hart": "heart", "haert": "heart", "hrs": "hours",
    "mins": "minutes", "secs": "seconds", "pluse": "pulse", "puls": "pulse", "lowst": "lowest", "epsiode": "episode",
    "betwen": "between", "mornin": "morning", "afib's": "afib", "nr": "number", "heartrate": "heart rate",
    "heartrates": "heart rates", "tonite": "tonight", "thru": "through", "ekg": "ecg",
}  # fmt: skip
_WORDS_TEXT = (
    "yesterday today tonight night morning afternoon evening midnight breakfast lunch dinner weekend monday tuesday "
    "wednesday thursday friday saturday sunday january february march april august september october november "
    "december between before after since hours hour minutes minute seconds days weeks week month heart rate pulse "
    "average highest lowest maximum minimum longest shortest latest earliest recent percentage percent burden "
    "fraction proportion episodes episode events event atrial fibrillation ventricular supraventricular tachycardia "
    "bradycardia pauses pause couplets couplet bigeminy trigeminy asystole ectopic ectopics ectopy premature flutter "
    "extrasystole extrasystoles recorded recording readable unreadable signal battery electrode electrodes connection "
    "coverage variability interval intervals duration trend compare describe explain summary summarise summarize "
    "overview similar localise localize symptom symptoms number total frequent happened afib "
)
WORDS = frozenset(_WORDS_TEXT.split())
_KEPT_TEXT = (
    "show shown light right might sight weak weeks meat beat beats least latter later pose posed cause causes paste "
    "events even evens ever every resting fasting nights days totally records recorder recordings read ready reading "
    "signals compared comparing explained describes minutes hearts heard hear hours ours hourly daily nightly monthly "
    "weekly friend friends rates rated paused pausing averaged average similarly symptomatic intervals connected "
    "connections recently summer mean means meant meaning describing morning mornings evenings afternoons lunchtime "
    "percents burdens frequently frequency event's connect signalled durations weekends happen happens happening "
    "numbers extra batteries electrode's "
)
_KEPT = frozenset(_KEPT_TEXT.split())


def spell(text: str, keep: Collection[str] = ()) -> str:
    """Return text with typing errors in words about time, heart and recording corrected.

    Args:
        keep: words that are right as they are, such as names.
    """
    kept = {word.lower() for word in keep}

    def better(match: re.Match[str]) -> str:
        word = match[0]
        low = word.lower()
        if low in kept:
            return word
        if low in _SHORT:
            return _SHORT[low]
        return _nearest(low) or word

    text = re.sub(r"(?<![\w'-])[A-Za-z0-9]+(?![\w-])", better, text)
    text = re.sub(r"(?<![\w.:])(\d+) ?h(?!\w)", r"\1 hours", text)
    text = re.sub(r"(?<![\w.:])(\d+) ?min(?!\w)", r"\1 minutes", text)
    clock = r"\d{1,2}(?:[:.]\d\d)?"
    text = re.sub(
        rf"(between|from) ({clock}) (and|to|until) ({clock}) (?:in the|this) (morning|afternoon|evening)(?!\w)",
        lambda m: f"{m[1]} {m[2]} {m[3]} {m[4]} {'am' if m[5] == 'morning' else 'pm'}",
        text,
        flags=re.IGNORECASE,
    )
    return re.sub(
        rf"(at|around|about|since|after|before) ({clock}) (?:in the|this) (morning|afternoon|evening)(?!\w)",
        lambda m: f"{m[1]} {m[2]} {'am' if m[3] == 'morning' else 'pm'}",
        text,
        flags=re.IGNORECASE,
    )


@lru_cache(maxsize=4096)
def _nearest(word: str) -> str | None:
    if len(word) < 5 or word in WORDS or word in _KEPT or not word.isalpha():
        return None
    allowed = 1 if len(word) < 8 else 2
    near = sorted(
        (d, known)
        for known in WORDS
        if known[0] == word[0] and abs(len(known) - len(word)) <= allowed and (d := _distance(word, known)) <= allowed
    )
    return near[0][1] if near else None


def _distance(a: str, b: str) -> int:
    """Return the optimal string alignment distance (insertions, deletions, substitutions, neighbours swapped)."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
