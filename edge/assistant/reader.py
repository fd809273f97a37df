"""The deterministic planner: the words of a question → steps, by fixed patterns; and what code cannot place.

A question is cut into clauses at `and`, `or`, commas and question marks. Each clause names what it can (tool, labels,
time words, wearers) and borrows the rest from its neighbours, the first one of a follow-up from the plan before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from edge.assistant.labels import ANY, BEAT_LABELS, EVENT_LABELS, LABEL_WORDS, LABELS, TERMS
from edge.assistant.plan import MAX_STEPS, SPAN, TOOLS, Marked, Step, Steps, context_period

_ANY = (
    r"events?|episodes?|alerts?|alarms?|arrhythmias?|findings?|anything|something|everything|thing|happen(?:ed)?"
    r"|problems?|unusual|abnormal\w*|flag(?:ged)?|warnings?"
)
_SEVERITY = (("critical", r"critical|life.?threatening"), ("serious", r"urgent|serious|severe|important"))
_EDGES = (
    ("longest", r"longest|(?:lasted|long) the longest"),
    (
        "first",
        r"(?:very )?first|earliest|(?:when|what time) did .*(?:start|begin|set in)|(?:when"
        r"|what time) .* (?:start|beg[ia]n)",
    ),
    (
        "last",
        r"(?<!it )(?<!that )(?<!they )last(?! (?:longer|shorter|more|less|for|at least|over|under)\b)"
        r"|latest|(?:most|my most) recent|newest",
    ),
)
_SHOW = r"show|see|display|draw|print|plot|picture|look at|view|pull up|bring up"
_TRACE = r"strips?|ecgs?|traces?|tracings?|waveforms?|signal"
_RATE = (
    r"heart ?rates?|pulse|bpm|hr|beats per minute"
    r"|how (?:fast|slow|high|low)(?:ly)? (?:did|was|is|does|has) (?:my|his|her|the) (?:heart|pulse)"
    r"|heart (?:was |is |beat |beating |go |going )*(?:slower|faster|slowest|fastest)"
    r"|(?:slowest|fastest) (?:\w+ )?heart|how (?:fast|slow)"
)
_AGGREGATES = (
    ("min", r"lowest|minimum|minimal|min|slowest|least|how (?:low|slow)(?:ly)?"),
    ("max", r"highest|maximum|maximal|max|fastest|peak(?:ed)?|at most|how high|high point|top"),
    ("latest", r"current|latest|most recent"),
    ("mean", r"average|mean|typical(?:ly)?|usual|normal(?:ly)?"),
)
_MEASURES = (("sdnn", r"sdnn"), ("rmssd", r"rmssd"), ("pnn50", r"pnn ?50"), ("all", r"hrv|variab\w*"))
_INTERVALS = (
    ("qtc", r"q-?tc|corrected q-?t"),
    ("qt", r"(?<!long )(?<!corrected )q-?t(?= |$|,|\?|-)(?! syndrome)"),
    ("pr", r"pr|p-?q"),
    ("qrs", r"qrs"),
)
_SHARE = r"burden|per ?cent(?:age)?|%|share|fraction|proportion|what part|ratio"
_TIME = (
    r"how long|how much|total|duration|how many (?:minutes|hours|seconds)|sum up the time|time (?:spent )?in"
    r"|time spent|amount of|(?:minutes|hours) (?:in|of)|in (?:minutes|hours)"
    r"|(?<!what )(?<!its )(?<!their )(?<!exact )time"
)
_COVERAGE = (
    r"coverage|wear ?time|(?:data|signal|recording) (?:quality|complete\w*)|(?:how|is) complete|how readable"
    r"|quality of the (?:data|signal|recording)|how (?:much|long|well|good|many hours)\b.*\b(?:record\w*"
    r"|data|readable|worn|wear|signal quality)"
    r"|(?:was|were|is|has) (?:\S+ )*?(?:recorded|readable|worn|record\w* running)|complete(?:ly)?"
    r"|(?:amount of )?readable (?:data|signal)"
    r"|(?:strap|patch|sensor|electrodes?) (?:still )?on|wear(?:ing)?|wore|worn|(?:is there|any|have) (?:\w+ )*?data"
    r"|record(?:ed|ing)? (?:anything|something)|what part .*missing|how many hours .*record\w*|is missing"
)
_DEVICE = (
    r"batter(?:y|ies)|charged?|connected|online|offline|device(?: status)?|(?:sensor|gateway|device|strap"
    r"|patch) (?:ok|status)"
    r"|state of .*(?:sensor|device|strap|patch)|is it recording|(?:are you|you are"
    r"|is it) (?:still )?(?:getting|receiving|recording)"
    r"|(?:sensor|gateway)|status"
)
_TREND = (
    r"trends?|over time|hour by hour|by the hour|hourly|(?:per|each|every) (?:hour|day)|develop\w*|evolv\w*"
    r"|(?:go|going|went|gone) (?:up|down)|ris(?:e|en|ing)|rose|fall(?:en|ing)|fell|chang(?:e|ed|es|ing)|increas\w*"
    r"|decreas\w*|curve|chart|graph|plot|course|(?:get|getting|got|become|becoming) (?:worse|better|more|less)"
)
_COMPARE = (
    r"compar\w*|versus|vs\.?|differ\w*|(?:more|less|fewer|higher|lower|slower|faster|longer|shorter|better"
    r"|worse)\b.*\b(?:than|or)"
    r"|(?:slower|faster|higher|lower|more|less)\b"
)
_SIMILAR = (
    r"similar\w*|resembl\w*|alike|look(?:s|ing)? like"
    r"|(?:anything|others?|episodes|moments|stretches|spots|places|more) like"
)
_KIND = r"(?:anything|something) like(?! (?:the|that|this|it)\b)"
"""Anything like AF: any AF."""
_DESCRIBE = r"descri\w*|what do you see|what does .*look like|in words|how does .*look"
_LOCALIZE = (
    r"mark|locali[sz]e|locate|point out|highlight|annotate|pinpoint|where exactly"
    r"|where (?:in|on) the (?:trace|ecg|signal)"
)
_EXPLAIN = (
    r"(?:what(?:'?s| is| are| does| do)|whats|define|explain|meaning|mean|means|meant|stands? for|difference between)"
)
_SUMMARY = (
    r"summar\w*|overview|sum up|what happened|what went on|going on|how (?:was|were|is|has|are)|how'?s|how did .* go"
    r"|(?:anything|something|did anything|did something) (?:unusual|abnormal|happen(?:ed)?|wrong)|happen(?:ed|ing)?"
    r"|recap|worst|tell me about(?: (?:my|his|her|the) (?:day|night|heart))?\W*$|what did you (?:find|see"
    r"|notice)|(?:been )?(?:doing|happening)|quiet|report|unusual"
)
_COUNT = r"how many|how much times|how often|how frequent(?:ly)?|numbers? of|number|count\w*|many times"
_LIST = (
    r"list|show|when|which|what (?:time|times)|at (?:what|which) times?|give me|enumerate|details?|what|name|times of"
)
_POLAR = (
    r"(?:is|are|was|were|did|do|does|have|has|had|haven'?t|hasn'?t|didn'?t|wasn'?t|weren'?t|any|no|tell me if"
    r"|evidence)\b"
)
_TERM_WORDS: tuple[tuple[str, str], ...] = (
    ("heart_rate", r"heart ?rate|pulse"),
    ("st_segment", r"st(?:[ -]segment)?"),
    ("t_wave", r"t[ -]waves?"),
    ("p_wave", r"p[ -]waves?"),
    ("r_peak", r"r[ -]peaks?"),
    ("sinus_rhythm", r"sinus rhythm"),
    ("burden", r"burden"),
    ("coverage", r"coverage"),
    ("readable", r"readable"),
    ("holter", r"holter"),
    ("lead", r"leads?"),
    ("strip", r"strips?"),
    ("hrv", r"hrv|(?:heart rate )?variability"),
)
_UNSUPPORTED = (
    ("atrial flutter", r"(?<!ventricular )flutter"),
    ("ST changes", r"st[ -](?:elevation|depression|changes?|segment)|isch[a]?emi\w*|infarct\w*"),
    ("heart block", r"(?:av|heart|second degree|third degree|first degree) ?-?blocks?"),
    ("blood pressure", r"blood pressure|systolic|diastolic|hypertens\w*"),
    ("blood oxygen", r"spo2|oxygen|saturation"),
    ("breathing", r"breath(?:ing|s)?|respirat\w*|apn[o]?ea"),
    ("temperature", r"temperature|fever"),
    ("sleep", r"sleep\w*|slept|rem sleep"),
    ("activity", r"steps|calories|activity|exercise|workout|walk(?:ed)?"),
    ("stress", r"stress(?:ed)?|mood|anxi\w*"),
    ("glucose", r"glucose|blood sugar|sugar"),
    ("weight", r"weigh\w*"),
)
_UNKNOWN_TIME = (
    r"ago|since|until|till|tomorrow|fortnight|during|while|before|after|between|yesterday|tonight|midnight"
    r"|(?:in|last|this|next|past) (?:spring|summer|autumn|fall|winter|year|decade)|years?|next \w+"
    r"|(?:last|past|this|next|previous|every|each) (?:few |couple of |\d+ |two |three |four |five |six |seven )?"
    r"(?:minutes?|weeks?|months?|nights?|mornings?|evenings?|afternoons?)"
    r"|(?:last|past|next|previous) (?:few |\d+ )?(?:hours?|days?)"
    r"|january|february|april|june|july|august|september|october|november|december|\d{4}-\d\d-\d\d"
    r"|\d{1,2}[:.]\d\d|\d{1,2} ?[ap]\.?m\b|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|asleep"
    r"|when i (?!wa?s? ?wear|last|go|get|have|had|push|press)"
)
_CONDITION = (
    r"(?:longer|shorter|more|less|fewer|faster|slower|higher|lower|greater|(?:lasting|lasted|last) (?:over|under)"
    r"|above|below|exceed(?:s|ed|ing)?|at least|at most|no more)(?: than)? "
    r"(?:an? |one |two |three |half an? |\d+(?:[.,]\d+)? ?)"
    r"(?:hours?|minutes?|mins?|seconds?|s|ms|bpm|beats?(?: per minute)?|percent|%)"
)
_FOLLOWS = (
    r"\W*(?:and|what about|how about|same|only|also|but|or|that|is that|was that|show (?:me )?(?:that|it)|as a|then)\b"
    r"|.*\b(?:it|its|that|this one|them|those|his|her|their|the longest one|then|one)\b"
)


@dataclass(slots=True)
class _Clause:
    text: str
    tool: str = ""
    labels: list[str] = field(default_factory=list)
    args: list[dict[str, str]] = field(default_factory=list)
    """The arguments of the tool but labels; one step for each."""
    phrases: list[str] = field(default_factory=list)
    wearers: list[str] = field(default_factory=list)
    edge: str = ""
    lone: str = ""
    """An aggregate without a word for heart rate."""
    borrows: bool = False
    """What it means depends on its neighbours."""
    topic: bool = False
    """It only says what the next one is about: of last night's pauses, …"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the words of a question settle."""

    steps: Steps
    unsupported: str | None = None
    """Something this gateway does not measure."""
    unknown_time: str | None = None
    """Words about time that `period` cannot resolve."""
    condition: str | None = None
    """A limit that what is asked for must keep to, which no tool knows."""


def read(marked: Marked, context: Steps = ()) -> Reading:
    """Return the plan that the words of a marked question spell, its steps empty if they spell none.

    Args:
        context: the plan of the question before, for a follow-up.
    """
    text = _asking(_tokens(marked), marked)
    without = re.sub(r"<[tw]\d>", " ", text)
    unsupported = next((name for name, pattern in _UNSUPPORTED if _has(pattern, without)), None)
    explains = _has(_EXPLAIN, without) and not marked.phrases
    unknown = _search(_UNKNOWN_TIME, re.sub(r"difference between", " ", without))
    if unsupported and not explains:
        return Reading((), unsupported, unknown)
    condition = _search(_CONDITION, without)
    if condition:
        return Reading((), None, None, condition)
    compared = _compared(text, marked, context)
    if compared:
        return Reading(compared, None, unknown)
    beside = re.search(r"<t(\d)> <t(\d)>|\b(?:half|quarter) <t(\d)>", text)
    if beside and not unknown:  # two times that nothing joins, or part of one: half of it is not understood
        unknown = " ".join(marked.phrases[int(n) - 1] for n in beside.groups() if n)
    clauses = [_clause(part, marked) for part in _split(text)]
    clauses = _settled([c for c in clauses if _says(c)], marked, context, text)
    steps: list[Step] = []
    for clause in clauses:
        for step in _steps(clause, marked):
            if step not in steps:
                steps.append(step)
    return Reading(tuple(steps[:MAX_STEPS]), None, unknown)


def _tokens(marked: Marked) -> str:
    text = re.sub(r"\(([tw]\d): [^)]*\)", r"<\1>", marked.text)
    text = _corrected(text)
    text = re.sub(r"\bshow(?:s|ed)? up\b", "occur", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(did|has|have) ((?:\S+ ){1,3}?)(first|last) (?=[a-z]+\b)", r"\1 \3 \2", text)
    text = re.sub(r"\bup or down\b", "up", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(?:what|how) about\b", "and", text, flags=re.IGNORECASE)
    return re.sub(r"[’`]", "'", text).lower()


def _corrected(text: str) -> str:
    """Return what somebody means who says "…, I mean …": the latter, with the times and names it does not replace."""
    said = re.fullmatch(r"(.*)\bi mean\b(.*)", text, re.IGNORECASE)
    if said is None:
        return text
    kept = [mark for mark in re.findall(r"<[tw]\d>", said[1]) if f"<{mark[1]}" not in said[2]]
    return " ".join([said[2], *kept])


def _asking(text: str, marked: Marked) -> str:
    """Return a text without the sentences that only lead up to the question."""
    sentences = re.split(r"(?<=[.!])\s+(?=\S)", text)

    def asks(sentence: str) -> bool:
        if not re.search(r"[a-z]{3}", re.sub(r"<[tw]\d>", "", sentence)):
            return True  # times and names alone
        clauses = [_clause(part, marked) for part in _split(sentence)]
        return any(c.tool or c.labels or c.edge or c.lone for c in clauses)

    kept = [sentence for sentence in sentences if asks(sentence)]
    return " ".join(kept) if kept else text


def _split(text: str) -> list[str]:
    text = re.sub(r"(?<=<w\d>) (?:and|or) (?=<w\d>)", " ", text)
    return [
        part
        for part in re.split(r"\?+|[;!.,]+(?= |$)|\b(?:and|or|but|plus|as well as|also)\b| - ", text)
        if part.strip()
    ]


def _has(pattern: str, text: str) -> bool:
    return _search(pattern, text) is not None


def _search(pattern: str, text: str) -> str | None:
    match = re.search(rf"(?<![\w])(?:{pattern})(?!\w)", text, re.IGNORECASE)
    return match[0] if match else None


def find_labels(text: str) -> tuple[list[str], str]:
    """Return the labels a text names, in its order, and the text without them."""
    found: list[tuple[int, str]] = []
    for name, pattern in LABEL_WORDS:
        places = re.finditer(rf"(?<![\w])(?:{pattern})(?!\w)", text, re.IGNORECASE)
        found += [(match.start(), name) for match in places]
        text = re.sub(rf"(?<![\w])(?:{pattern})(?!\w)", lambda m: "#" * len(m[0]), text, flags=re.IGNORECASE)
    return list(dict.fromkeys(name for _, name in sorted(found))), text


def _clause(text: str, marked: Marked) -> _Clause:
    clause = _Clause(text)
    clause.phrases = [marked.phrases[int(n) - 1] for n in re.findall(r"<t(\d)>", text)]
    clause.wearers = [marked.wearers[int(n) - 1] for n in re.findall(r"<w(\d)>", text)]
    bare = re.sub(r"<[tw]\d>(?:'s)?", " ", text)
    bare = " ".join(bare.split())
    clause.labels, rest = find_labels(bare)
    severity = [name for name, pattern in _SEVERITY if _has(pattern, rest)]
    if severity and not clause.labels:
        clause.labels = severity[:1]
    clause.edge = next((name for name, pattern in _EDGES if _has(pattern, rest)), "")
    _choose(clause, bare, rest)
    if "all_beats" in clause.labels and len(clause.labels) > 1:
        clause.labels.remove("all_beats")
    return clause


def _choose(clause: _Clause, bare: str, rest: str) -> None:
    """Find the tool of a clause by its words, the most particular first."""
    labels = clause.labels
    intervals = [name for name, pattern in _INTERVALS if _has(pattern, rest)]
    measures = [name for name, pattern in _MEASURES if _has(pattern, rest)]
    events = any(label in EVENT_LABELS or label in BEAT_LABELS for label in labels)
    rate = _has(_RATE, rest) and not (labels == ["all_beats"] and not _has(r"heart ?rate|pulse|bpm|hr", rest))
    anything = _has(_ANY, rest)
    if _explains(clause, bare, rest, intervals, measures):
        return
    if _has(_DESCRIBE, rest) or (_has(r"report on", rest) and _has(_TRACE, rest)):
        clause.tool, clause.args = "describe", [{"which": clause.edge or (SPAN if not labels else "last")}]
    elif _has(_SIMILAR, rest) and (clause.edge or (labels and not _has(_KIND, rest))):
        clause.tool, clause.args = "similar", [{"which": clause.edge or "last"}]
    elif _has(_LOCALIZE, rest) and labels:
        clause.tool = "localize"
        if _has(r"nois[ey]\w*|art[ei]facts?", bare):
            clause.labels = ["noise" if label == "unreadable" else label for label in labels]
    elif (_has(_SHOW, rest) and _has(_TREND, rest.replace("plot", ""))) or (
        _has(r"plot|graph|chart|curve", rest) and (rate or measures)
    ):
        _trend(clause, rate, measures)
    elif _strips(clause, rest, labels):
        clause.tool, clause.args = "strip", [{"which": clause.edge or (SPAN if not labels else "last")}]
    elif _has(_DEVICE, rest) and not (set(labels) & set(EVENT_LABELS)) and not _has(_COVERAGE, rest):
        clause.tool = "device"
    elif _has(_TREND, rest) and not (clause.edge and labels):
        _trend(clause, rate, measures)
    elif measures:
        clause.tool, clause.args = "hrv", [{"measure": m} for m in _only(measures)]
    elif intervals and not events:
        clause.tool, clause.args = "interval", [{"name": n} for n in sorted(intervals, key=rest.find)]
    elif _has(_COVERAGE, bare) and set(labels) <= {ANY, "all_beats", "gap", "unreadable"} and not clause.edge:
        clause.tool, clause.labels = "coverage", []
    elif (rate and not events) or (rate and set(labels) <= {"all_beats"}):
        clause.tool, clause.labels = "heart_rate", []
        clause.args = [{"aggregate": a} for a in _aggregates(rest) or [_usual(clause)]]
    elif clause.edge and (labels or anything):
        clause.tool = clause.edge
        clause.labels = labels or [ANY]
    elif labels and _has(_SHARE, rest):
        clause.tool, clause.args = "total_time", [{"measure": "share"}]
    elif (
        labels
        and _has(_TIME, rest)
        and not _has(_COUNT.replace("how many|", "how many(?! (?:minutes|hours|seconds))|"), rest)
        and labels[0] not in BEAT_LABELS
    ):
        if not _has(r"times", rest) or _has(r"how long|total|duration", rest):
            clause.tool, clause.args = "total_time", [{"measure": "time"}]
        else:
            clause.tool = "list"
    elif labels and _has(_COUNT, rest):
        clause.tool = "count"
    elif (labels and _has(_LIST, rest)) or (
        anything and _has(r"list|show|which|what (?:alarms|events|alerts)|give me|enumerate|all", rest)
    ):
        if labels and re.match(rf"\W*{_POLAR}", rest) and not _has(r"when|list|which", rest):
            clause.tool = "count"
        elif not labels and _has(r"what happened|what went on", rest):
            clause.tool = "summary"
        else:
            clause.tool = "list"
            clause.labels = labels or [ANY]
    elif labels and re.search(rf"(?<!\w){_POLAR}", rest):
        clause.tool = "count"
    elif anything and _has(_COUNT, rest):
        clause.tool, clause.labels = "count", [ANY]
    elif not labels and _has(_SUMMARY, rest):
        clause.tool = "summary"
    elif anything and not labels and re.match(rf"\W*{_POLAR}", rest):
        clause.tool, clause.labels = "count", [ANY]
    elif not labels and _aggregates(rest):
        clause.lone = _aggregates(rest)[0]
    if clause.tool in ("strip", "describe", "similar") and not clause.labels and clause.edge:
        clause.labels = [ANY] if anything else []
    if clause.tool in ("strip", "describe") and clause.args == [{"which": SPAN}]:
        clause.labels = [ANY]


def _usual(clause: _Clause) -> str:
    now = any(
        phrase.lower() in ("now", "right now", "just now", "currently", "at the moment") for phrase in clause.phrases
    )
    return "latest" if now else "mean"


def _strips(clause: _Clause, rest: str, labels: list[str]) -> bool:
    if _has(_LIST.replace("show|", "").replace("|what", "").replace("name|", ""), rest) and not _has(_TRACE, rest):
        return False
    if _has(r"strips?", rest) or (_has(_SHOW, rest) and _has(_TRACE, rest) and not set(labels) & {"gap", "flat"}):
        return True
    return _has(_SHOW, rest) and (bool(clause.edge) or _has(r"that|it|this", rest)) and not _has("list", rest)


def _trend(clause: _Clause, rate: bool, measures: list[str]) -> None:
    clause.tool = "trend"
    if measures:
        clause.args, clause.labels = [{"of": "hrv"}], []
    elif rate or not [label for label in clause.labels if label != "all_beats"]:
        if not rate and not clause.labels and not _has("heart", clause.text):
            clause.borrows = True
        clause.args, clause.labels = [{"of": "heart_rate"}], []
    else:
        clause.args = [{"of": label} for label in clause.labels if label in LABELS]
        clause.labels = []


def _explains(clause: _Clause, bare: str, rest: str, intervals: list[str], measures: list[str]) -> bool:
    strong = _has(
        r"define|explain|meaning|stands? for|what do(?:es)? .*mean|mean by|is meant by|difference between", bare
    )
    weak = re.match(
        r"\W*(?:so |and )?(?:what (?:exactly |actually |really )?(?:is|are)|what'?s) (?:exactly |actually )?"
        r"(?!my\b|his\b|her\b|the (?:last|longest|first"
        r"|most|latest|current|lowest|highest|average|mean|max|min))(?:an? |the )?",
        bare,
    )
    if not strong and not weak:
        return False
    if (
        clause.phrases
        or (not strong and _has(r"my|his|her|right now|now", bare))
        or "'s" in clause.text.replace("what's", "")
    ):
        return False
    terms = [label for label in clause.labels if label in TERMS]
    if not terms:
        terms = intervals + [m if m != "all" else "hrv" for m in measures]
    terms = terms or [name for name, pattern in _TERM_WORDS if _has(pattern, rest)]
    if not strong and clause.edge:
        return False
    if not terms:
        if strong or re.search(r"\b(?:that|this|it)\b", bare):
            clause.tool, clause.borrows = "explain", True
            return re.search(r"\b(?:that|this|it)\b", bare) is not None
        return False
    if not strong and len(re.sub(r"[#\W]", "", rest)) > 28:
        return False
    clause.tool, clause.args = "explain", [{"term": term} for term in terms]
    clause.labels = []
    return True


def _only(measures: list[str]) -> list[str]:
    named = [m for m in measures if m != "all"]
    return named or ["all"]


def _aggregates(rest: str) -> list[str]:
    places = [
        (m.start(), name) for name, pattern in _AGGREGATES for m in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", rest)
    ]
    return list(dict.fromkeys(name for _, name in sorted(places)))


def _says(clause: _Clause) -> bool:
    return bool(clause.tool or clause.labels or clause.phrases or clause.wearers or clause.edge or clause.lone) or _has(
        rf"how long|when|how many|how much|how often|where|list|which|enumerate|{_SHARE}", clause.text
    )


def _settled(clauses: list[_Clause], marked: Marked, context: Steps, text: str) -> list[_Clause]:
    """Let every clause borrow what it leaves open."""
    before = _of_context(context)
    follows = before is not None and (re.match(_FOLLOWS, text) is not None or _elliptical(clauses))
    last = before if follows else None
    out: list[_Clause] = []
    for n, clause in enumerate(clauses):
        after = clauses[n + 1] if n + 1 < len(clauses) else None
        if out and _refines(clause, out[-1]):
            continue
        names_none = not clause.labels
        _fill(clause, last, after, first=not out)
        if not clause.tool:
            continue
        if out and out[-1].topic and names_none:
            topic = out.pop()
            clause.phrases, clause.wearers = clause.phrases or topic.phrases, clause.wearers or topic.wearers
        out.append(clause)
        last = clause
    for n, clause in enumerate(out):
        if clause.tool in ("device", "explain"):
            continue
        if not clause.phrases:
            near = [c for c in (*reversed(out[:n]), *out[n + 1 :]) if c.phrases]
            own = [p for c in clauses if c not in out for p in c.phrases]
            clause.phrases = list(near[0].phrases if near else own)
        if not clause.phrases and follows and context_period(context):
            clause.phrases = [context_period(context)]
    if len(marked.wearers) == 1:
        for clause in out:
            clause.wearers = [marked.wearers[0]]
    for n, clause in enumerate(out):
        if not clause.wearers:
            near = [c for c in (*reversed(out[:n]), *out[n + 1 :]) if c.wearers]
            clause.wearers = list(near[0].wearers) if near else []
    if follows and not marked.wearers and context[-1].args.get("wearer"):
        for clause in out:
            clause.wearers = [context[-1].args["wearer"]]
    if (
        follows
        and before is not None
        and _has(r"then|at that time|during (?:it|that)", text)
        and before.tool in ("first", "last", "longest")
    ):
        for clause in out:
            label = context[-1].args["label"]
            spoken = f"during the {before.tool} {label.replace('_', ' ')}"
            within = context_period(context)
            clause.phrases = [f"{spoken} {within}".strip()]
    return out


def _refines(clause: _Clause, last: _Clause) -> bool:
    """Whether a clause only says more exactly what the one before asks for; that one is changed then."""
    words = re.sub(r"<[tw]\d>", "", clause.text).strip()
    if last.tool == "total_time" and re.fullmatch(r"(?:as|in) (?:an? )?(?:percent\w*|per cent|share|fraction)", words):
        last.args = [{"measure": "share"}]
        return True
    so = r"(?:(?:at )?(?:when|what time)(?: was (?:it|that))?|(?:for )?how long(?: was it| did (?:it|that) last)?)"
    if last.tool in ("first", "last", "longest") and re.fullmatch(so, words):
        return True
    if last.tool == "heart_rate" and re.fullmatch(r"how (?:fast|slow|high|low|much)(?: (?:was|is) it)?", words):
        return True
    one = re.fullmatch(r"(?:i mean )?(?:the |just |only )*(?:very )?\w+ ones?(?: please)?", words)
    if one and clause.edge and not clause.labels and last.tool in ("list", "count") and last.labels:
        last.tool, last.edge, last.args = clause.edge, clause.edge, []
        return True
    return False


def _elliptical(clauses: list[_Clause]) -> bool:
    return (
        not clauses
        or any(not c.tool or (c.tool in TOOLS and "label" in TOOLS[c.tool] and not c.labels) for c in clauses[:1])
        or (len(clauses[0].text.split()) <= 3 and not clauses[0].phrases)
    )


def _of_context(context: Steps) -> _Clause | None:
    if not context:
        return None
    step = context[-1]
    clause = _Clause("", step.tool)
    clause.labels = [step.args["label"]] if "label" in step.args else []
    rest = {k: v for k, v in step.args.items() if k in TOOLS[step.tool] and k != "label"}
    clause.args = [rest] if rest else []
    clause.edge = step.tool if step.tool in ("first", "last", "longest") else step.args.get("which", "")
    return clause


def _fill(clause: _Clause, before: _Clause | None, after: _Clause | None, *, first: bool) -> None:
    near = before or after
    text = clause.text
    if clause.borrows and clause.tool == "explain" and not clause.args:
        clause.args = [{"term": t}] if before and (t := _term(before)) else []
        if not clause.args:
            clause.tool = ""
        return
    if clause.tool == "trend" and clause.borrows and before and before.labels:
        clause.args, clause.borrows = [{"of": before.labels[0]}], False
        return
    if not clause.tool:
        _borrow_tool(clause, before, after, first=first)
    shown = clause.tool in ("strip", "describe", "similar") and (not clause.labels or clause.labels == [ANY])
    of_span = bool(clause.phrases) and clause.args == [{"which": SPAN}]
    if shown and before is not None and before.labels and not of_span and not _has("signal", text):
        clause.labels = list(before.labels)
        clause.args = [{"which": clause.edge or before.edge or "last"}]
    if clause.tool in TOOLS and "label" in TOOLS[clause.tool] and not clause.labels:
        clause.borrows = True
        if near is not None and near.labels:
            clause.labels = list(near.labels)
        elif before is not None and before.tool == "explain" and before.args:
            clause.labels = [a["term"] for a in before.args if a["term"] in LABELS]
        elif before is not None and before.tool == "trend":
            clause.labels = [a["of"] for a in before.args if a["of"] in LABELS]


def _borrow_tool(clause: _Clause, before: _Clause | None, after: _Clause | None, *, first: bool) -> None:
    text = clause.text
    if clause.lone and not clause.labels:
        if any(c is not None and c.tool in ("heart_rate", "summary") for c in (before, after)) or before is None:
            heart = any(c is not None and c.tool == "heart_rate" for c in (before, after))
            clause.tool = "heart_rate" if heart or _has("heart", text) else ""
            clause.args = [{"aggregate": clause.lone}]
        elif before.tool not in ("count", "list"):
            clause.tool, clause.args = "heart_rate", [{"aggregate": clause.lone}]
        return
    if clause.edge and not clause.tool:
        near = before if before is not None and before.labels else after
        if near is not None and near.labels:
            clause.tool, clause.labels, clause.borrows = clause.edge, clause.labels or list(near.labels), True
            return
    if before is not None and before.labels and not clause.labels and not clause.tool:
        asked: tuple[tuple[str, list[dict[str, str]], str], ...] = (
            ("total_time", [{"measure": "share"}], _SHARE),
            ("total_time", [{"measure": "time"}], r"how long|how much (?:of the )?time|in total"),
            ("list", [], r"when|which ones|what times?|list"),
            ("count", [], r"how many|how often|count"),
        )
        for tool, args, pattern in asked:
            if _has(pattern, text):
                clause.tool, clause.args, clause.labels = tool, list(args), list(before.labels)
                return
    near = before or after
    if near is None or not near.tool:
        if clause.labels:
            clause.tool = "count"
            clause.topic = re.match(r"\W*(?:of|among|out of|from)\b", text) is not None
        return
    clause.borrows = True
    if clause.labels:
        if "label" in TOOLS[near.tool] and not (near.tool == "count" and before is None):
            clause.tool, clause.args = near.tool, [dict(a) for a in near.args]
        elif near.tool in ("trend", "compare"):
            clause.tool, clause.args, clause.labels = near.tool, [{"of": label} for label in clause.labels], []
        elif near.tool == "explain":
            clause.tool, clause.args, clause.labels = "explain", [{"term": t} for t in clause.labels if t in TERMS], []
        else:
            clause.tool = "count"
        return
    terms = [a["term"] for a in near.args if a.get("term") in LABELS]
    if near.tool == "explain" and terms and re.match(rf"\W*(?:{_POLAR}|how many|how often)", text):
        clause.tool, clause.labels = "count", terms
        return
    clause.tool, clause.args, clause.labels = near.tool, [dict(a) for a in near.args], list(near.labels)
    if near is after and clause.wearers and not clause.phrases:
        clause.phrases = list(near.phrases)


def _term(clause: _Clause) -> str:
    for args in clause.args:
        if args.get("measure") == "share":
            return "burden"
        for name in ("name", "measure", "of"):
            if args.get(name) in TERMS:
                return args[name]
        if args.get("measure") == "all":
            return "hrv"
    if clause.labels:
        return clause.labels[0] if clause.labels[0] in TERMS else ""
    return clause.tool if clause.tool in TERMS else ""


def _compared(text: str, marked: Marked, context: Steps) -> Steps:
    """Return the comparison a question asks for, none if it asks for something else."""
    if not _has(_COMPARE, text) or (_has("differ\\w*", text) and not marked.phrases):
        return ()
    if not marked.phrases or len(marked.phrases) > 2:
        return ()
    bare = re.sub(r"<[tw]\d>(?:'s)?", " ", text)
    labels, rest = find_labels(bare)
    single = len(marked.phrases) == 1
    if single and not (_has(r"than|compar\w*|versus|vs\.?", rest)):
        return ()
    labels = [label for label in labels if label in LABELS and label not in ("all_beats", ANY)]
    strong = _has(r"compar\w*|versus|vs\.?|differ\w*|than", rest)
    if not strong and not (labels or _has(_RATE, rest)):
        return ()
    if _has(r"hrv|variab\w*|sdnn|rmssd", rest):
        of = ["hrv"]
    elif labels:
        of = labels
    elif _has(_RATE + r"|slower|faster", rest):
        of = ["heart_rate"]
    elif context and re.search(r"\b(?:that|this|it)\b", rest):
        of = [_compared_of(context[-1])]
    else:
        of = ["summary"]
    period, versus = (marked.phrases[0], marked.phrases[1]) if not single else ("", marked.phrases[0])
    if single and context and re.search(r"\b(?:that|this|it)\b", rest):
        period = context_period(context)
    wearer = marked.wearers[0] if marked.wearers else (context[-1].args.get("wearer", "") if context else "")
    return tuple(
        Step("compare", {"of": o, "period": period, "versus": versus, "wearer": wearer}) for o in of[:MAX_STEPS]
    )


def _compared_of(step: Step) -> str:
    if step.tool in ("heart_rate", "hrv", "summary"):
        return step.tool
    of = step.args.get("label", step.args.get("of", "summary"))
    return of if of in (*LABELS, "heart_rate", "hrv") else "summary"


def _steps(clause: _Clause, marked: Marked) -> Iterator[Step]:
    tool = clause.tool
    if (
        tool == "total_time"
        and clause.args == [{"measure": "time"}]
        and clause.labels
        and clause.labels[0] in BEAT_LABELS
    ):
        tool = "count"
    args = [{k: v for k, v in a.items() if k in TOOLS[tool]} for a in clause.args] or [{}]
    labels: list[str] = clause.labels if "label" in TOOLS[tool] else [""]
    for wearer, phrase, label, more in product(clause.wearers or [""], clause.phrases or [""], labels or [], args):
        named = {"label": label} if label else {}
        step = Step(tool, {**named, **more, "period": phrase, "wearer": wearer})
        if all(step.args.get(name) in allowed for name, allowed in TOOLS[tool].items()):
            yield step
        elif (tool == "longest" and label in BEAT_LABELS) or (tool == "list" and label in BEAT_LABELS):
            yield Step("count", {"label": label, "period": phrase, "wearer": wearer})
