"""The words of questions: what each label, tool and figure is called, and what this gateway cannot tell."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge.assistant.labels import ANY, GENERAL_LABELS
from edge.assistant.period import find_phrases

_LABEL_WORDS = (
    ("extreme_bradycardia", r"extreme brady\w*|very slow beats"),
    ("extreme_tachycardia", r"extreme tachy\w*|very fast beats"),
    ("svt", r"svts?|psvt|supra-?ventricular tachy\w*"),
    ("vf", r"v-?fib|vf|ventricular (?:fibrillation|flutter)"),
    ("vt", r"v-?tach|vt|ventricular tachy\w*"),
    ("af", r"a-?fib|af|atrial fib\w*|fibrillat\w*|irregular(?:ly)? (?:irregular )?rhythm"),
    ("pause", r"paus(?:es?|ed)"),
    ("asystole", r"asystol\w*|heart (?:ever )?stop(?:ped)?|cardiac standstill"),
    ("bradycardia", r"brady\w*|slow (?:heart ?beat|heart rhythm|rhythm)|too slow"),
    ("tachycardia", r"tachy\w*|(?:fast|rapid|racing) (?:heart ?beat|heart|rhythm)|heart (?:was )?racing|too fast"),
    ("ectopy_rate", r"(?:frequent|ectopy) (?:ventricular )?(?:ectopy|rate)|frequent pvcs"),
    ("couplet", r"couplets?"),
    ("r_on_t", r"r[ -]on[ -]t"),
    ("bigeminy", r"bigemin\w*"),
    ("trigeminy", r"trigemin\w*"),
    ("run", r"runs? of (?:\w+ )?(?:ectop\w*|pvcs?|beats)|runs(?! of)|nsvt|salvos?"),
    (
        "sve",
        r"pacs?|svebs?|apcs?|(?:supra-?ventricular|atrial) (?:ectop\w*|extra ?systoles?|(?:(?:extra"
        r"|premature) ?)?beats?)",
    ),
    (
        "pvc",
        r"pvcs?|vpbs?|vebs?|vpcs?|(?:premature )?ventricular (?:ectop\w*|beats?|(?:extra"
        r"|premature) ?(?:systoles?|beats?|contractions?))",
    ),
    (
        "ectopic_beats",
        r"ectop(?:y|ic|ics)(?: beats?)?|extra-? ?(?:beats?|systoles?)|(?:premature|skipped|missed) beats?",
    ),
    ("gap", r"gaps?|drop-?outs?|interruptions?|missing (?:data|signal)|data loss"),
    (
        "lead_off",
        r"(?:leads?|electrodes?|strap|patch) (?:came |come |was |were |fell |fall )?off|contact lost|lost contact",
    ),
    ("flat", r"flat ?-?lines?|flat signal"),
    ("unreadable", r"unreadable|nois[ey]\w*|art[ei]fact\w*"),
    ("link_lost", r"(?:link|connection|bluetooth) (?:was )?lost|lost (?:link|connection)|disconnect\w*"),
    ("battery_low", r"battery|batteries"),
    ("recording_stopped", r"recording (?:ever )?stop(?:ped)?"),
    ("gateway_down", r"gateway (?:was |ever )?(?:down|off|away|not running)"),
    ("symptom", r"symptoms?|button press\w*|pressed the button"),
    ("all_beats", r"(?:heart ?)?beats"),
)
_ANY_WORDS = (
    r"events?|episodes?|alerts?|alarms?|arrhythmias?|findings?|anything|happen(?:ed)?|problems?"
    r"|unusual|abnormal\w*"
)

_TOOL_WORDS = (
    (
        "coverage",
        r"coverage|wear ?time|(?:data|signal|recording) quality|how (?:much|long"
        r"|well) (?:\w+ )*(?:record\w*|data|readable|worn|wear)|(?:was|were|is) (?:\w+ )*(?:recorded"
        r"|recording|readable|worn)|did i wear",
    ),
    (
        "trend",
        r"trends?|over time|hour by hour|hourly|(?:per|each|every) (?:hour|day)|develop\w*|(?:go|going"
        r"|went) (?:up|down)|ris(?:e|en|ing)|rose|fall(?:en|ing)|fell|chang(?:e|ed|ing)|curve|chart|plot",
    ),
    (
        "heart_rate",
        r"heart ?rates?|pulse|bpm|hr|beats per minute|(?:fast|slow)(?:est)? (?:did|was"
        r"|is) my heart(?: (?:beat|beating|go))?|how (?:fast|slow)(?:ly)?",
    ),
    (
        "summary",
        r"summar\w*|overview|worst|most serious|what happened|what went on|how was|how did .* go|how is .* doing|report"
        r"|recap",
    ),
    ("longest", r"longest"),
    ("first", r"first|earliest|(?:when|what time) did .*(?:start|begin)"),
    ("last", r"last|latest|most recent"),
    (
        "total_time",
        r"how long|how much|total|burden|per ?cent(?:age)?|%|share|fraction|proportion|what part|duration"
        r"|how many (?:minutes|hours|seconds)",
    ),
    ("count", r"how many|how often|number of|count\w*|many"),
    ("list", r"list|show|when|which|what times?|give me|details"),
)
_POLAR = r"(?:is|are|was|were|did|do|does|have|has|had|any)\b"

_AGGREGATE_WORDS = (
    ("min", r"lowest|minimum|min|slowest|least"),
    ("max", r"highest|maximum|max|fastest|peak"),
    ("latest", r"now|right now|current(?:ly)?|at the moment|latest|most recent"),
    ("mean", r"average|mean|typical(?:ly)?|usual|what (?:was|is)|how was"),
)

_UNSUPPORTED = (
    ("atrial flutter", r"flutter"),
    ("QT or PR intervals", r"q-?tc?(?: interval)?s?|pr interval|qrs (?:width|duration)|intervals?"),
    ("ST changes", r"st[ -](?:elevation|depression|changes?|segment)|isch[a]?emi\w*|infarct\w*"),
    ("conduction block", r"(?:av|heart|bundle branch|second degree|third degree|first degree) ?-?blocks?|lbbb|rbbb"),
    ("heart rate variability", r"hrv|variability|rmssd|sdnn"),
    ("blood pressure", r"blood pressure|systolic|diastolic|hypertens\w*"),
    ("blood oxygen", r"spo2|oxygen|saturation"),
    ("breathing", r"breath(?:ing|s)?|respirat\w*|apn[o]?ea"),
    ("temperature", r"temperature|fever"),
    ("sleep", r"sleep stages?|how (?:well|long|much) did i sleep|rem sleep"),
    ("activity", r"steps|calories|activity|exercise|workout"),
    ("stress", r"stress(?:ed)?|mood|anxi\w*"),
    ("glucose", r"glucose|blood sugar"),
)
_UNKNOWN_TIME = (
    r"ago|since|until|till|tomorrow|fortnight|during|while|before|after|between|yesterday|tonight|midnight"
    r"|(?:in|last|this|next|past) (?:spring|summer|autumn|fall|winter|year|decade)|years?|next \w+"
    r"|(?:last|past|this|next|previous|every|each) (?:few |\d+ )?(?:minutes?|weeks?|months?|nights?"
    r"|mornings?|evenings?|afternoons?)"
    r"|(?:last|past|next|previous) (?:few |\d+ )?(?:hours?|days?)"
    r"|january|february|april|june|july|august|september|october|november|december|\d{4}-\d\d-\d\d"
    r"|\d{1,2}[:.]\d\d|\d{1,2} ?[ap]\.?m\b|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|asleep"
    r"|when i (?!wa?s? ?wear)"
)
_SEVERITY_WORDS = (("critical", r"critical|life.?threatening"), ("serious", r"urgent|serious|severe"))


@dataclass(frozen=True, slots=True)
class Words:
    """What the words of a question settle; an empty tuple leaves it open."""

    labels: tuple[str, ...]
    tools: tuple[str, ...]
    aggregates: tuple[str, ...]
    phrases: tuple[str, ...]
    """Time phrases, as written."""
    share: bool
    """Asks for a burden or a percentage."""
    polar: bool
    """A yes/no question."""
    unsupported: str | None
    """Something this gateway does not measure."""
    unknown_time: str | None
    """Words about time that `period` cannot resolve."""


def read_words(question: str) -> Words:
    """Return what the words of a question say, by fixed patterns."""
    phrases = find_phrases(question)
    rest = question
    for phrase in phrases:
        rest = rest.replace(phrase, " · ", 1)
    labels, without_labels = _take(rest, _LABEL_WORDS)
    if not labels:
        labels = _take(without_labels, _SEVERITY_WORDS)[0][:1]
    if not labels and _search(_ANY_WORDS, without_labels):
        labels = [ANY]
    if "all_beats" in labels and len(labels) > 1:
        labels.remove("all_beats")
    tools, _ = _take(without_labels, _TOOL_WORDS)
    if "heart_rate" in tools:
        labels = [label for label in labels if label not in ("all_beats", *GENERAL_LABELS)]
    aggregates = [name for name, pattern in _AGGREGATE_WORDS if _search(pattern, question)]
    return Words(
        labels=tuple(labels),
        tools=tuple(tools),
        aggregates=tuple(aggregates),
        phrases=tuple(phrases),
        share=_search(r"burden|per ?cent(?:age)?|%|share|fraction|proportion|what part", question) is not None,
        polar=re.match(rf"\W*(?:and |so )?{_POLAR}", question, re.IGNORECASE) is not None,
        unsupported=next((name for name, pattern in _UNSUPPORTED if _search(pattern, without_labels)), None),
        unknown_time=_search(_UNKNOWN_TIME, rest),
    )


def _search(pattern: str, text: str) -> str | None:
    match = re.search(rf"(?<![\w])(?:{pattern})(?!\w)", text, re.IGNORECASE)
    return match[0] if match else None


def _take(text: str, words: tuple[tuple[str, str], ...]) -> tuple[list[str], str]:
    """Return the names found, in the order of the table, and the text without them: an earlier name wins."""
    found = []
    for name, pattern in words:
        text, n = re.subn(rf"(?<![\w])(?:{pattern})(?!\w)", " ", text, flags=re.IGNORECASE)
        if n:
            found.append(name)
    return found, text
