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

STEERING = (
    "I only look things up in the recordings: I change nothing, and I do not say what somebody tells me to say. Ask, "
    "for example, how many pauses there were last night."
)

_RULES = (
    (
        EMERGENCY,
        r"chest (?:pain\w*|pressure|tight\w*|hurt\w*|ache\w*|feels?)|(?:pain|pressure|tightness) in (?:my|his|her|the) "
        r"(?:chest|arm|jaw)|in (?:my|his|her) chest|heart attack|stroke|"
        r"(?:can'?t|cannot|can not|hard to|trouble|difficulty|not) breath\w*|short(?:ness)? of breath|faint(?:ed|ing)?|"
        r"pass(?:ed|ing)? out|black(?:ed|ing)? out|unconscious\w*|collaps\w*|dying|going to die"
        r"|wants? to die|suicid\w*|"
        r"kill myself|dizz\w*|light-?headed|palpitations|emergency|ambulance|"
        r"not (?:respond\w*|waking up)|call (?:a|the|my) doctor|call (?:112|911|999)|"
        r"(?:i|she|he) (?:(?:am|is|'m) )?(?:feel(?:s|ing)?|(?:do(?:es)?n'?t|do(?:es)? not) feel)|my heart feels|"
        r"(?:arm|hand|face|leg|jaw|lips?|chest)s? (?:\w+ )?(?:is|are|feels?|aches?|hurts?)|it hurts|"
        r"too many (?:pills|tablets)|over ?dos(?:e|ed)|sweat\w*|numb(?:ness)?|turning blue|pounding",
    ),
    (
        MEDICINE,
        r"dos(?:e|es|age|ing)|\d* ?mg|milligrams?|pills?|tablets?|medic(?:ation|ations|ine|ines)|drugs?|supplements?|"
        r"beta-? ?blockers?|\w+(?:olol|arone|ainide|xaban|farin)|digoxin|aspirin|ibuprofen|anti-?coagula\w*|"
        r"blood thinners?|prescri\w*|treat(?:ed|ment|ments)?|therapy|ablation|pacemaker(?! (?:beat|rhythm|complex))\w*|"
        r"(?:should|can|may|could) i (?:take|stop|skip|increase|reduce|double)|what can i (?:take|do)|"
        r"helps? against|would .* help|slow my heart down",
    ),
    (
        DIAGNOSIS,
        r"diagnos\w*|what(?:'s| is) wrong|am i (?:sick|ill|ok|okay|healthy|fine|at risk|in danger|going to \w+)|"
        r"(?:is|was) (?:my (?:heart|ecg|ekg|pulse|rhythm|heart rate)|it|this|that|everything) (?:ok|okay|healthy|fine|"
        r"normal|dangerous|serious|safe|bad|damaged|worrying)|going to be (?:ok|okay|fine|well)"
        r"|too \w+ for (?:me|him|her)|"
        r"should i (?:be (?:worried|concerned)|worry|see|go|exercise|drive)|"
        r"can i (?:go|run|jog|exercise|drive|swim|fly|play|travel)|do i need|will (?:i|he|she)\b.*|i live|"
        r"(?:at |my )?risks?(?: of .*)?|prognosis|life expectancy|what caus(?:es|ed)|why (?:do|did|is|am|does|was) .*|"
        r"(?:heart|cardiac) (?:disease|condition|failure)|syndrome|how (?:dangerous|serious|bad)|"
        r"results? mean|sudden death",
    ),
    (
        STEERING,
        r"ignore (?:all|any|every|the|previous)\b.*|you are (?:now|a)|pretend|repeat after|"
        r"(?:answer|reply|respond) (?:with|only|exactly|to everything)|you answer|"
        r"(?:you )?(?:must|should) (?:always )?(?:answer|say)|say (?:that|exactly|the following)|say \W.*|"
        r"(?:system )?prompt|instructions?|(?:delete|erase|remove|drop|overwrite) (?:all|every|the|table"
        r"|my)|mark .* as|"
        r"(?:switch|turn) (?:off|on)|disable|passwords?|rm -\w+|drop table|translate|role ?play|play a game|dan mode|"
        r"from now on|multiply|system: .*|assistant: .*|user: .*|always answer",
    ),
)
_SYNTAX = re.compile(r"<\||\|>|\{\s*[\"\w]|/etc/|';|--\s*$|^\s*(?:A|Q|SYSTEM):|(?:%[a-z]){2}")
"""Nothing that belongs into a question."""


def fixed_answer(question: str) -> str | None:
    """Return the fixed answer a question gets, the most urgent one first; None if it may be planned."""
    for answer, pattern in _RULES:
        if re.search(rf"(?<!\w)(?:{pattern})(?!\w)", question, re.IGNORECASE):
            return answer
    return STEERING if _SYNTAX.search(question) else None
