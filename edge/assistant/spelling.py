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
    "complete completes completed completely couple couples coupled second match matches function functional passes "
    "reported reporting reports reliable unreliable correction convention collection internal integral percentile "
    "reachable unreachable regarding regarded reworded dilation dilated donation launch latent alter altered alters "
    "atria atrium ventricle ventricles months monthly mounting recurring "
    "recurred resent proportional promotion prematurely summaries totals friction "
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
    text = _spoken_times(text)
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


_HOUR_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_HOURS = {word: n for n, word in enumerate(_HOUR_WORDS, 1)}
_MINUTES = {"five": 5, "ten": 10, "quarter": 15, "a quarter": 15, "twenty": 20, "twenty five": 25, "half": 30}
_HOUR = rf"(?:{'|'.join(_HOURS)}|\d{{1,2}})(?![\w:.]*\d)"
_AFTER_CLOCK = (
    r"(?=\W*$|[?,;]| ?(?:and|to|until|till|-|am|pm|a\.m\.|p\.m\.|o'?clock"
    r"|in the|on|last|yesterday|today|tonight|this)\b)"
)


def _spoken_times(text: str) -> str:
    """Return text with spoken clock times and lengths in figures: half past two, a fortnight, half an hour."""

    def hour(word: str) -> int:
        return _HOURS.get(word.lower()) or int(word)

    def past(match: re.Match[str]) -> str:
        minutes, at = _MINUTES[match[1].lower()], hour(match[3])
        if match[2].lower() == "to":
            minutes, at = 60 - minutes, (at - 2) % 12 + 1
        return f"{at}:{minutes:02d}"

    text = re.sub(
        rf"\b(half|a quarter|quarter|twenty five|twenty|ten|five) (past|after) ({_HOUR})",
        past,
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(rf"\b(a quarter|quarter) (to) ({_HOUR})", past, text, flags=re.IGNORECASE)
    words = "|".join(_HOURS)
    before = r"(?:between|from|at|since|after|before|until|till|around|about)"
    text = re.sub(
        rf"\b({before}) ({words})\b{_AFTER_CLOCK}", lambda m: f"{m[1]} {hour(m[2])}", text, flags=re.IGNORECASE
    )
    clock = r"\d{1,2}(?:[:.]\d\d)?"
    text = re.sub(
        rf"\b((?:between|from) {clock} (?:and|to|until|till)) ({words})\b{_AFTER_CLOCK}",
        lambda m: f"{m[1]} {hour(m[2])}",
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(r"\ba fortnight(?! ago)\b|\bfortnight(?! ago)\b", "2 weeks", text, flags=re.IGNORECASE)
    text = re.sub(
        r"\b(?:an|one) hour and a half(?! ago)\b|\bone and a half hours\b", "90 minutes", text, flags=re.IGNORECASE
    )
    text = re.sub(r"\bhalf (?:an )?hour(?! ago)\b", "30 minutes", text, flags=re.IGNORECASE)
    return re.sub(r"\b(?:a )?quarter of an hour(?! ago)\b", "15 minutes", text, flags=re.IGNORECASE)


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
