"""What can be asked about: labels (rule names, beats, severities), what they are called, and the terms explained."""

from __future__ import annotations

from edge.rhythm.events import RULES, SYSTEM_RULES

BEAT_LABELS = {
    "pvc": ("V",),
    "sve": ("S",),
    "ectopic_beats": ("S", "V", "F"),
    "all_beats": ("N", "S", "V", "F", "Q"),
}
"""Labels that count beats → AAMI classes."""
ANY = "any"
"""Every rule."""
SEVERITY_LABELS = {"serious": ("urgent", "critical"), "critical": ("critical",)}
"""Labels that stand for every rule of these severities."""
GENERAL_LABELS = (ANY, *SEVERITY_LABELS)
EVENT_LABELS = (*RULES, *GENERAL_LABELS)
"""Labels that stand for findings, with an onset and a length."""
LABELS = (*RULES, *BEAT_LABELS, *GENERAL_LABELS)
MORPHOLOGY_LABELS = ("lbbb", "rbbb", "paced", "noise")
"""Labels that only the model that looks can mark."""
TERMS = (
    *(label for label in (*RULES, *BEAT_LABELS) if label != "all_beats"),
    *("heart_rate", "hrv", "sdnn", "rmssd", "pnn50", "pr", "qrs", "qt", "qtc", "sinus_rhythm", "burden", "lead"),
    *("strip", "holter", "lbbb", "rbbb", "paced", "st_segment", "t_wave", "p_wave", "r_peak", "readable", "coverage"),
)
"""What the glossary explains."""
SIGNAL_RULES = frozenset({"gap", "lead_off", "flat", "unreadable", *SYSTEM_RULES, "symptom"})
"""Rules about the recording or the wearer's own doing: they rest on recorded, not on readable time."""

SPOKEN = {
    "af": ("episode of atrial fibrillation", "episodes of atrial fibrillation"),
    "svt": ("episode of supraventricular tachycardia", "episodes of supraventricular tachycardia"),
    "vt": ("episode of ventricular tachycardia", "episodes of ventricular tachycardia"),
    "vf": ("episode of ventricular fibrillation or flutter", "episodes of ventricular fibrillation or flutter"),
    "pause": ("pause", "pauses"),
    "asystole": ("episode of asystole", "episodes of asystole"),
    "bradycardia": ("episode of bradycardia", "episodes of bradycardia"),
    "tachycardia": ("episode of tachycardia", "episodes of tachycardia"),
    "extreme_bradycardia": ("episode of very slow beats", "episodes of very slow beats"),
    "extreme_tachycardia": ("episode of very fast beats", "episodes of very fast beats"),
    "ectopy_rate": ("period of frequent ventricular ectopy", "periods of frequent ventricular ectopy"),
    "couplet": ("couplet", "couplets"),
    "run": ("run of ectopic beats", "runs of ectopic beats"),
    "bigeminy": ("episode of bigeminy", "episodes of bigeminy"),
    "trigeminy": ("episode of trigeminy", "episodes of trigeminy"),
    "r_on_t": ("R-on-T beat", "R-on-T beats"),
    "gap": ("gap in the recording", "gaps in the recording"),
    "lead_off": ("lead-off period", "lead-off periods"),
    "flat": ("flat-line period", "flat-line periods"),
    "unreadable": ("unreadable period", "unreadable periods"),
    "link_lost": ("lost connection", "lost connections"),
    "battery_low": ("low-battery report", "low-battery reports"),
    "recording_stopped": ("stop of the recording", "stops of the recording"),
    "gateway_down": ("time without the gateway", "times without the gateway"),
    "symptom": ("symptom mark", "symptom marks"),
    "pvc": ("ventricular ectopic beat", "ventricular ectopic beats"),
    "sve": ("supraventricular ectopic beat", "supraventricular ectopic beats"),
    "ectopic_beats": ("ectopic beat", "ectopic beats"),
    "all_beats": ("beat", "beats"),
    ANY: ("event", "events"),
    "serious": ("urgent or critical event", "urgent or critical events"),
    "critical": ("critical event", "critical events"),
}
"""Label → one, several."""

LABEL_WORDS: tuple[tuple[str, str], ...] = (
    ("lbbb", r"lbbb|left bundle[ -]branch(?: block)?"),
    ("rbbb", r"rbbb|right bundle[ -]branch(?: block)?"),
    ("paced", r"pace(?:d|maker) (?:beats?|rhythm|complex(?:es)?)|paced"),
    ("svt", r"(?:p?svts?|supra-? ?ventricular tachy\w*)(?: runs?)?"),
    ("vf", r"v-? ?fib|vf|ventricular (?:fibrillation|flutter)"),
    ("vt", r"(?:v-? ?tach|vts?|ventricular tachy\w*)(?: runs?)?|ventricular runs?"),
    (
        "af",
        r"a-? ?fib|af|(?:atrial )?fibrillat\w*|atrial fib\w*"
        r"|irregular(?:ly)? (?:irregular )?(?:heart ?)?(?:rhythm|beat)s?",
    ),
    ("pause", r"paus(?:es?|ed|ing)"),
    ("asystole", r"asystol\w*|heart (?:ever )?stop(?:ped)?(?: beating)?|cardiac standstill"),
    (
        "bradycardia",
        r"brady\w*|slow (?:heart ?beats?|heart rhythm|rhythm)|slow heart ?rates?(?= (?:episodes?|events?|periods?))"
        r"|(?:beat(?:ing)? )?(?:far |much )?too slow(?:ly)?"
        r"|beat(?:ing)? slowly",
    ),
    (
        "tachycardia",
        r"tachy\w*|(?:fast|rapid|high) heart ?rates?(?= (?:episodes?|events?|periods?))"
        r"|(?:fast|rapid|racing) (?:heart ?beats?|heart(?: rhythm)?|rhythm)"
        r"|heart (?:was |ever |is )*rac(?:e|ed|es|ing)|racing|too fast",
    ),
    ("ectopy_rate", r"(?:frequent|ectopy) (?:ventricular )?(?:ectopy|rate)|frequent pvcs"),
    ("couplet", r"couplets?"),
    ("r_on_t", r"r[ -]on[ -]t"),
    ("bigeminy", r"bigemin\w*"),
    ("trigeminy", r"trigemin\w*"),
    (
        "run",
        r"(?:(?<=longest )|(?<=last )|(?<=first )|(?<=any )|(?<= a ))run(?! of)|runs(?! of)|nsvt|salvos?"
        r"|runs? of (?:\w+ )?(?:ectop\w*|pvcs?|beats)",
    ),
    (
        "sve",
        r"(?:beats|ones|those|extras?) (?:(?:coming|that come|starting) )?from the (?:atria|atrium|upper chambers?)"
        r"|(?:atrial|supraventricular) ones"
        r"|pacs?|sves?|svebs?|svpbs?|apcs?|apbs?|premature (?:atrial|supra-? ?ventricular) (?:beats?|contractions?)"
        r"|(?:supra-? ?ventricular|atrial) (?:ectop\w*(?: beats?)?|extra[- ]?systoles?"
        r"|(?:(?:extra|premature)[- ]?)?(?:beats?|contractions?))",
    ),
    (
        "pvc",
        r"(?:beats|ones|those|extras?) (?:(?:coming|that come|starting) )?from the (?:ventricles?|lower chambers?)"
        r"|ventricular ones|pvc'?s?|vpbs?|vebs?|vpcs?|ves|(?:premature )?ventricular (?:ectop\w*(?: beats?)?|beats?"
        r"|(?:extra|premature)[- ]?(?:systoles?|beats?|contractions?))",
    ),
    (
        "ectopic_beats",
        r"ectop(?:y|ic|ics)(?: beats?)?|extra-? ?(?:heart ?)?(?:beats?|systoles?)"
        r"|(?:premature|skipped|missed) (?:heart ?)?beats?|ectopics",
    ),
    (
        "recording_stopped",
        r"recording (?:ever )?stop(?:ped|s)?|stops? (?:of|in) the recording|stop(?:ped)? recording",
    ),
    (
        "gap",
        r"gaps?|drop(?:ped|s)?[ -]?outs?|interrupt(?:ions?|ed)|missing (?:data|signal)|data loss"
        r"|signal (?:get|got|was) lost",
    ),
    (
        "lead_off",
        r"leads?[- ]off|(?:leads?|electrodes?|strap|patch|sensor)"
        r" (?:\w+ ){0,2}?(?:ever )?(?:came |come |coming |was |were |fell |fall |falling |being )?"
        r"(?:off|loose)(?: the skin)?"
        r"|(?:contact lost|los[et] (?:\w+ )?contact|without contact|no contact)|off the skin",
    ),
    ("flat", r"flat ?-?lin(?:es?|ed)|flat signal|(?:go|went|gone|goes) flat|flat"),
    ("unreadable", r"unreadable|(?:too )?nois[ey]\w*|art[ei]facts?"),
    (
        "link_lost",
        r"(?:link|connection|bluetooth)(?: (?!and\b|or\b)\w+){0,4}? (?:lost|drop(?:ped)?|down)"
        r"|(?:los[et]|drop(?:ped)?) (?:the |its )?(?:link|connection)|(?:bluetooth )?disconnect\w*",
    ),
    ("battery_low", r"(?:low|weak|empty)[- ]battery|battery (?:was |is |got |get )?(?:low|weak|empty)"),
    (
        "symptom",
        r"symptoms?(?: (?:marks?|button))?|button press\w*|(?:press|push)(?:ed)? (?:the |my )?(?:symptom )?button",
    ),
    ("all_beats", r"(?:heart ?)?beats"),
)
"""Label → what it is called; a phrase belongs to the first that claims it."""
