"""Questions that get a fixed answer before any model or tool is asked: emergencies, medicines, diagnoses."""

from __future__ import annotations

import re

EMERGENCY = (
    "I cannot help with symptoms or emergencies. If you feel unwell - chest pain, trouble breathing, fainting, "
    "weakness - call the emergency number (112 in Europe, 911 in North America) or a doctor now. "
    "This is research software, not a medical device, and nobody watches these data."
)
MEDICINE = (
    "I cannot advise on medicines, doses or treatment. Please ask a doctor or a pharmacist. "
    "This is research software, not a medical device."
)
DIAGNOSIS = (
    "I cannot diagnose, judge risk or say whether something is dangerous. I can say what this software found in the "
    "recording, for example how many episodes and when; what it means is for a doctor to say."
)

_RULES = (
    (
        EMERGENCY,
        r"chest (?:pain\w*|pressure|tight\w*|hurt\w*|ache\w*)|(?:pain|pressure|tightness) in (?:my|his|her|the) "
        r"(?:chest|arm|jaw)|heart attack|stroke|(?:can'?t|cannot|can not|hard to|trouble|difficulty) breath\w*|"
        r"short(?:ness)? of breath|faint(?:ed|ing)?|pass(?:ed|ing)? out|black(?:ed|ing)? out|unconscious\w*|"
        r"collaps\w*|dying|going to die|suicid\w*|kill myself|dizz\w*|light-?headed|palpitations|emergency|"
        r"ambulance|not (?:breathing|responding|waking up)|call (?:a|the|my) doctor|"
        r"i (?:feel|am feeling) (?:very |so )?(?:unwell|sick|ill|bad|weak)",
    ),
    (
        MEDICINE,
        r"dos(?:e|es|age|ing)|\d* ?mg|milligrams?|pills?|tablets?|medic(?:ation|ations|ine|ines)|drugs?|"
        r"beta-? ?blockers?|\w+(?:olol|arone|ainide|xaban|farin)|digoxin|aspirin|anti-?coagula\w*|blood thinners?|"
        r"prescri\w*|treat(?:ed|ment|ments)?|therapy|ablation|pacemaker|should i (?:take|stop|skip|increase|reduce)",
    ),
    (
        DIAGNOSIS,
        r"diagnos\w*|what(?:'s| is) wrong|am i (?:sick|ill|ok|okay|healthy|fine|at risk|in danger|going to \w+)|"
        r"(?:is|was) (?:my heart|it|this|that|everything) (?:ok|okay|healthy|fine|normal|dangerous|serious|safe|bad|"
        r"damaged|worrying)|should i (?:be (?:worried|concerned)|worry|see|go|exercise|drive)|do i need|will i\b.*|"
        r"(?:at |my )?risks?(?: of .*)?|prognosis|life expectancy|what caus(?:es|ed)|why (?:do|did|is|am|does|was) .*|"
        r"(?:heart|cardiac) (?:disease|condition|failure)|how (?:dangerous|serious|bad)",
    ),
)


def fixed_answer(question: str) -> str | None:
    """Return the fixed answer a question gets, the most urgent one first; None if it may be planned."""
    for answer, pattern in _RULES:
        if re.search(rf"(?<!\w)(?:{pattern})(?!\w)", question, re.IGNORECASE):
            return answer
    return None
