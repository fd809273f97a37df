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

_JUDGED = (
    r"(?:is|are|was|were) (?!(?:\S+ )*?(?:there|any\w*|some\w*|signal|record\w*|device|gateway|sensor|strap|patch"
    r"|electrodes?|battery|quality|contact|data|connection|trace)\b)(?:[\w']+ ){1,6}?"
    r"(?:bad|normal|abnormal|dangerous|serious|severe|harmful|harmless|worrying|concerning|ok|okay|healthy|fine|safe"
    r"|life[ -]threatening|too (?:many|much|high|low|often)|a lot)"
    r"(?=\W*$| (?:for|last|today|yesterday|this|at|in|to|or|and|enough|tonight)\b)"
)
"""Whether something found is good or bad; of the recording itself that may be asked."""
_ONE = r"(?:i|we|he|she|they)"

_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        EMERGENCY,
        (
            r"chest (?:pain\w*|pressure|tight\w*|hurt\w*|ache\w*|feels?)|in (?:my|his|her) chest",
            r"(?:pain|pressure|tightness) in (?:my|his|her|the) (?:chest|arm|jaw)",
            r"(?:heav\w*|weight|press\w*|squeez\w*|crush\w*|burn\w*|stabbing|sits?|sitting) (?:\w+ )*?"
            r"(?:on|in|across|around) (?:my|his|her|the) chest",
            r"pains?|painful|chok(?:e|es|ing)|vomit\w*|throw(?:ing|s)? up|bleed\w*|swallow(?:ed|s)",
            r"looks? (?:grey|gray|pale|blue|ill|unwell|awful)|clammy|twitch\w*",
            r"(?:be|is) dead|(?:fell|fallen) (?:down|over|and)",
            r"(?:gone|going|went) blue|chest burns|no point in (?:going on|living)",
            r"no pulse|(?:not|isn'?t|n'?t) moving|(?:very|badly|terribly) wrong",
            r"(?:hardly|barely|can'?t|cannot) (?:stand|walk|speak|move)",
            r"heart attack|stroke|emergency|ambulance|shocked (?:me|him|her)",
            r"(?:can'?t|cannot|can not|hard to|trouble|difficulty|not|isn'?t|stop(?:s|ped)?|barely|hardly) breath\w*",
            r"short(?:ness)? of breath|turning blue|palpitations|pounding|sweat\w*|numb(?:ness)?",
            r"faint(?:ed|ing)?|pass(?:ed|ing)? out|black(?:ed|ing)? out|unconscious\w*|collaps\w*|unresponsive",
            r"(?:not|\w+n'?t) (?:respond\w*|wak(?:e|ing)(?: up)?)|dizz\w*|light-?headed",
            r"slurr\w*|droop\w*|seizures?|convuls\w*",
            r"dying|going to die|wants? to die|suicid\w*|(?:kill|hurt|harm) (?:my|him|her)self|end (?:my|his|her) life",
            r"(?:\w+n'?t|not) want to (?:live|be alive|go on)",
            r"(?:call|dial|phone|ring) (?:(?:a|the|my) doctor|112|911|999)|a ?& ?e",
            r"(?:go|drive|get|taken?|rush\w*) (?:\w+ )*?to (?:the |an? )?(?:hospital|er|emergency|casualty)",
            r"(?:i|she|he) (?:(?:am|is|'m) )?(?:feel(?:s|ing)?|(?:do(?:es)?n'?t|do(?:es)? not) feel)|my heart feels",
            r"(?:arm|hand|face|leg|jaw|lips?|chest)s? (?:\w+ )?(?:is|are|feels?|aches?|hurts?)|it hurts",
            r"too (?:many|much) (?:\w+ )*?(?:pills|tablets|medic\w*)|over ?dos(?:e|ed)",
        ),
    ),
    (
        MEDICINE,
        (
            r"dos(?:e|es|age|ing)|\d* ?mg|milligrams?|pills?|tablets?|medic(?:ation|ine)s?|drugs?|supplements?",
            r"beta-? ?blockers?|\w+(?:olol|arone|ainide|xaban|farin)|digoxin|aspirin|ibuprofen|anti-?coagula\w*",
            r"blood thinners?|prescri\w*|treat(?:ed|ment|ments)?|therapy|ablation",
            r"pacemaker(?! (?:beat|rhythm|complex))\w*",
            rf"(?:should|can|may|could|must) {_ONE} (?:take|stop|skip|increase|reduce|double|halve)",
            r"what can i (?:take|do)",
            r"(?:ok|okay|safe|fine|alright) to (?:take|stop|skip|double|halve|mix|combine)|(?:stop|skip|forgot) taking",
            r"potassium|magnesium|cardioversion|helps? against|would .* help|slow my heart down",
        ),
    ),
    (
        DIAGNOSIS,
        (
            r"diagnos\w*|what(?:'s| is) wrong|results? mean|syndrome|prognosis|life expectancy|sudden death",
            r"i live|to live",
            r"am i (?:sick|ill|ok|okay|healthy|fine|at risk|in danger|going to \w+)|going to be (?:ok|okay|fine|well)",
            r"(?:is|was) (?:my (?:heart|ecg|ekg|pulse|rhythm|heart rate)|it|this|that|everything) (?:ok|okay|"
            r"healthy|fine|normal|dangerous|serious|safe|bad|damaged|worrying)|too \w+ for (?:me|him|her)",
            _JUDGED,
            r"(?:does|do|is) (?:this|that|it|these|those) look(?:s|ing)? (?:like (?!the|th[ai]|it\b)|ok|normal|bad)\w*",
            r"should i (?:be (?:worried|concerned)|worry|see|go|exercise|drive)|do i need|will (?:i|he|she)\b.*",
            rf"(?:can|may|should|must) {_ONE} (?:still )?(?:go|run|jog|exercise|drive|swim|fly|play|travel|drink|eat"
            r"|smoke|work|lift|climb)",
            r"(?:at |my )?risks?(?: of .*)?|how (?:dangerous|serious|bad)",
            r"what(?:'s| is| was)? caus(?:es|ed|ing)|why (?:do|did|is|am|does|was) .*",
            r"worr(?:y|ied|ies|ying|isome)|chances?|likel(?:y|ihood)|odds|probab\w*|predict\w*|forecast",
            r"could (?:this|it|that|these) be|second opinion|healthy (?:one|heart|person)",
            r"should (?:he|she|we) (?:see|go|worry)",
            r"(?:am i|is (?:he|she)) (?:getting|doing|becoming)|other people|(?:for|at) (?:my|his|her) age",
            r"(?:heart|cardiac) (?:disease|condition|failure)|arter(?:y|ies)|blood clots?|angina|valves?",
        ),
    ),
    (
        STEERING,
        (
            r"(?:ignore|forget|disregard) (?:all|any|every\w*|the|your|previous|what)\b.*|from now on|always answer",
            r"the (?:correct|right|only) answer",
            r"you are (?:now|a)|pretend|role ?play|play a game|dan mode|repeat after|translate|multiply",
            r"(?:answer|reply|respond) (?:with|only|exactly|to everything|yes|no)|you answer",
            r"(?:must|should|have to|need to) (?:always )?(?:answer|say|tell|state|confirm|claim|write)|tell me that",
            r"say (?:that|exactly|the following)|say \W.*|(?:system )?prompt|instructions?",
            r"(?:system|assistant|user): .*",
            r"(?:write|compose|sing|tell) (?:me )?(?:an? )?(?:poem|story|joke|song|rap|essay|letter|haiku|code)",
            r"(?:delete|erase|remove|drop|overwrite) (?:all|every|the|table|my)|mark .* as|(?:switch|turn) (?:off|on)",
            r"disable|passwords?|rm -\w+|drop table",
        ),
    ),
)
_SYNTAX = re.compile(r"<\||\|>|\{\s*[\"\w]|/etc/|';|--\s*$|^\s*(?:A|Q|SYSTEM):|(?:%[a-z]){2}")
"""Nothing that belongs into a question."""
_ORDER = re.compile(
    r"\W*(?:please )?(?:act|send|order|buy|e-?mail|upload|share|sign|book|schedule|remind|play|open|restart|reset"
    r"|update|install|execute|select|write|repeat|disregard|ignore|pretend|forget|remove|delete|erase|add"
    r"|mute|silence|output)\b",
    re.IGNORECASE,
)
"""What somebody wants done, not known."""
_STATEMENT = re.compile(
    r"\W*(?:(?:i|he|she|we|they|something|somebody|someone|mum|mom|dad|grandma|grandpa)(?:'\w+)?|(?:my|his|her) \S+)"
    r" (?:\w+ )?(?:am|is|are|has|have|feels?|keeps?|can'?t|cannot|won'?t|isn'?t|aren'?t|doesn'?t|don'?t)\b",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\?|\b(?:what|when|how|which|who|whose|where|why|whether|if|any|show|list|count|give|tell|find|compar\w*|explain"
    r"|describe|mark|plot|number|summar\w*|know|see|ask\w*|want|like|need|look|wonder\w*|interested|curious"
    r"|(?:did|do|does|was|were|is|are|has|have|had) (?:i|he|she|we|they|it|there|my|his|her|the)|please)\b",
    re.IGNORECASE,
)
"""Somebody who tells how they are and asks nothing is answered as one who needs help, not with a figure."""


def fixed_answer(question: str) -> str | None:
    """Return the fixed answer a question gets, the most urgent one first; None if it may be planned."""
    for answer, patterns in _RULES:
        if answer != EMERGENCY and _ORDER.match(question):
            return STEERING
        if re.search(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", question, re.IGNORECASE):
            return answer
    if _SYNTAX.search(question):
        return STEERING
    return EMERGENCY if _STATEMENT.match(question) and not _ASKS.search(question) else None
