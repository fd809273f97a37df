"""Spans written by the language model, where only what can be true can be written.

At every token the model chooses among those that continue a possible answer: ` none`, or spans that run from place to
place of the clip, in order, without overlap. Where one token is left it is not asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.assistant.injection import Injection
from edge.assistant.wording import MAX_SPANS, NONE, Span


def point(injection: Injection, question: str, tenths: Sequence[int]) -> list[Span]:
    """Return the spans that the model answers to a question about the prefix it has read, in seconds.

    `tenths` are the times of the clip's places in tenths of a second, ascending.
    """
    times = sorted(set(tenths))
    injection.again()
    found: list[Span] = []
    pending = _choose(injection, question, [NONE + "\n", *_starts(times, -1)])
    while pending != NONE + "\n" and len(found) < MAX_SPANS:
        start = _tenths(pending[1:-1])
        said = _choose(injection, "", [f"{_written(time)}{after}" for time in times if time > start for after in " \n"])
        end = _tenths(said[:-1])
        found.append((start / 10, end / 10))
        starts = _starts(times, end)
        if said.endswith("\n") or not starts:
            break
        pending = " " + _choose(injection, "", [one[1:] for one in starts])
    return found


def _starts(times: Sequence[int], after: int) -> list[str]:
    return [f" {_written(time)}-" for time in times[:-1] if time > after]


def _written(tenths: int) -> str:
    return f"{tenths / 10:.1f}"


def _tenths(text: str) -> int:
    return round(10 * float(text))


def _choose(injection: Injection, before: str, answers: Sequence[str]) -> str:
    """Return the answer that the model writes after `before`, token by token; it has then been read as well."""
    waiting = injection.tokens(before)
    left = [(injection.tokens(answer), answer) for answer in answers]
    place = 0
    while True:
        following = {tokens[place] for tokens, _ in left}
        if len(following) > 1:
            injection.say(waiting)
            waiting = []
            token = injection.likeliest(sorted(following))
        else:
            token = following.pop()
        waiting.append(token)
        left = [one for one in left if one[0][place] == token]
        place += 1
        done = [one for one in left if len(one[0]) == place]
        if done:
            injection.say(waiting)
            return done[0][1]
