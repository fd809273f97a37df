"""What the terms mean, in plain words: curated, general, and the same for everybody."""

from __future__ import annotations

GLOSSARY = {
    "af": "Atrial fibrillation (AF): the atria quiver instead of beating together, so the pulse is irregular in an "
    "irregular way and the ECG shows no P waves.",
    "svt": "Supraventricular tachycardia (SVT): a fast, regular rhythm that begins above the ventricles, usually with "
    "narrow beats.",
    "vt": "Ventricular tachycardia (VT): three or more ventricular beats in a row at a fast rate.",
    "vf": "Ventricular fibrillation (VF): disordered electrical activity of the ventricles without a useful heartbeat.",
    "pause": "Pause: an unusually long time between two heartbeats. From which length on one is reported is a "
    "setting of this gateway.",
    "asystole": "Asystole: no heartbeat for longer than a pause.",
    "bradycardia": "Bradycardia: a slow heart rate over some time. The limit is a setting of this gateway.",
    "tachycardia": "Tachycardia: a fast heart rate over some time. The limit is a setting of this gateway.",
    "extreme_bradycardia": "Extreme bradycardia: a few beats in a row at a very low rate.",
    "extreme_tachycardia": "Extreme tachycardia: a row of beats at a very high rate.",
    "ectopy_rate": "Frequent ventricular ectopy: many ventricular ectopic beats in a short time.",
    "couplet": "Couplet: two ventricular ectopic beats in a row.",
    "run": "Run: three or more ectopic beats in a row, also called a salvo.",
    "bigeminy": "Bigeminy: every other beat is a ventricular ectopic beat.",
    "trigeminy": "Trigeminy: every third beat is a ventricular ectopic beat.",
    "r_on_t": "R-on-T: a ventricular ectopic beat that falls on the T wave of the beat before it.",
    "gap": "Gap: samples are missing; nothing was recorded there.",
    "lead_off": "Lead-off: the electrodes had no contact with the skin.",
    "flat": "Flat line: the signal did not move at all. That is more often a loose electrode than the heart.",
    "unreadable": "Unreadable: something was recorded, but too noisy to read. It counts neither as normal "
    "nor as an event.",
    "link_lost": "Link lost: the gateway heard nothing from the device for a while.",
    "battery_low": "Battery low: the device said its battery is nearly empty.",
    "recording_stopped": "Recording stopped: the device sent nothing for a long time.",
    "gateway_down": "Gateway down: the gateway itself was not running, so nothing was received.",
    "symptom": "Symptom mark: the wearer pressed the button or noted that something was felt.",
    "pvc": "PVC (premature ventricular contraction): a beat that comes early from a ventricle; wide, and without a P "
    "wave before it. Also called ventricular ectopic beat, VEB or ventricular extrasystole.",
    "sve": "Supraventricular ectopic beat (PAC, SVPB): a beat that comes early from above the ventricles, usually as "
    "narrow as a normal one.",
    "ectopic_beats": "Ectopic beat: a beat that starts somewhere else than a normal one, often early; "
    "people feel it as "
    "an extra or a skipped beat.",
    "heart_rate": "Heart rate: beats per minute, here from the intervals between beats in readable signal.",
    "hrv": "Heart rate variability (HRV): how much the time between normal beats varies. It is measured between normal "
    "beats only.",
    "sdnn": "SDNN: the standard deviation of the intervals between normal beats, in milliseconds.",
    "rmssd": "RMSSD: the root mean square of the differences between neighbouring normal intervals, in milliseconds.",
    "pnn50": "pNN50: the share of neighbouring normal intervals that differ by more than fifty milliseconds.",
    "pr": "PR interval: from the start of the P wave to the start of the QRS complex: the way from atria "
    "to ventricles.",
    "qrs": "QRS duration: how long the ventricles take to be activated; the large spike of a beat.",
    "qt": "QT interval: from the start of the QRS complex to the end of the T wave.",
    "qtc": "QTc: the QT interval corrected for heart rate by a formula, because QT is shorter when the "
    "heart is faster.",
    "sinus_rhythm": "Sinus rhythm: the usual rhythm, led by the sinus node; every QRS follows a P wave.",
    "burden": "Burden: the share of readable time in a rhythm, or the share of all beats that are of one kind.",
    "lead": "Lead: one view of the heart's electrical activity between electrodes.",
    "strip": "Strip: a few seconds of ECG drawn on a grid.",
    "holter": "Holter report: a summary of a day or more of continuous ECG.",
    "lbbb": "Left bundle branch block (LBBB): the left ventricle is activated late, so beats are wide.",
    "rbbb": "Right bundle branch block (RBBB): the right ventricle is activated late, so beats are wide.",
    "paced": "Paced beat: a beat started by a pacemaker.",
    "st_segment": "ST segment: the part between QRS complex and T wave. This gateway does not measure it.",
    "t_wave": "T wave: the recovery of the ventricles.",
    "p_wave": "P wave: the activation of the atria.",
    "r_peak": "R peak: the tallest upward deflection of a QRS complex; where a beat is counted.",
    "readable": "Readable: recorded and clean enough for beats to be told apart.",
    "coverage": "Coverage: how much of a period was recorded, and how much of that was readable.",
}
"""Term → explanation. Nothing here says what a finding means for a person."""
