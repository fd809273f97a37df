"""An HL7 FHIR R4 bundle: one DiagnosticReport, its figures and ECG strips as Observations.

https://hl7.org/fhir/R4/diagnosticreport.html, https://hl7.org/fhir/R4/datatypes.html#SampledData. Codes: MDC
(ISO/IEEE 11073-10101) 131328 for an ECG and its leads; LOINC for heart rate and Holter study.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection

from edge.assistant.localtime import iso_utc
from edge.chunk import MISSING
from edge.exchange.disguise import Disguise
from edge.report.chosen import NAMES, Choice, choose, first_sample
from edge.report.holter import Holter
from edge.report.strip import AS_RECORDED, FOOTER, ST_NOTE
from edge.store import queries, waveform

MDC = "urn:iso:std:iso:11073:10101"
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
ECG = {"system": MDC, "code": "131328", "display": "MDC_ECG_ELEC_POTL"}
LEADS = {
    "I": ("131329", "MDC_ECG_ELEC_POTL_I"),
    "II": ("131330", "MDC_ECG_ELEC_POTL_II"),
    "V1": ("131331", "MDC_ECG_ELEC_POTL_V1"),
    "V2": ("131332", "MDC_ECG_ELEC_POTL_V2"),
    "V3": ("131333", "MDC_ECG_ELEC_POTL_V3"),
    "V4": ("131334", "MDC_ECG_ELEC_POTL_V4"),
    "V5": ("131335", "MDC_ECG_ELEC_POTL_V5"),
    "V6": ("131336", "MDC_ECG_ELEC_POTL_V6"),
    "III": ("131389", "MDC_ECG_ELEC_POTL_III"),
    "aVR": ("131390", "MDC_ECG_ELEC_POTL_AVR"),
    "aVL": ("131391", "MDC_ECG_ELEC_POTL_AVL"),
    "aVF": ("131392", "MDC_ECG_ELEC_POTL_AVF"),
}
"""Lead → code and reference id of ISO/IEEE 11073-10101 (Annex A, ECG lead table)."""
STRIP_S = 10.0
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"


def bundle(conn: Connection, holter: Holter, hide: Disguise, now_ns: int) -> dict[str, Any]:
    """Return a Bundle of type `collection` as plain values.

    Args:
        conn: the database; the strips are read from it.
        holter: the figures of the period.
        hide: who is named and when it was.
        now_ns: when the report was issued, ns UTC; left out where hidden.
    """
    patient = _resource("Patient", identifier=[{"system": "urn:anyecg:wearer", "value": hide.wearer}])
    devices = {
        recording.id: _resource(
            "Device",
            identifier=[{"system": "urn:anyecg:device", "value": hide.device(recording.device)}],
            deviceName=[{"name": hide.device(recording.device), "type": "user-friendly-name"}],
        )
        for recording in holter.recordings
    }
    subject = {"reference": patient["fullUrl"]}
    figures = list(_figures(holter, hide, subject))
    strips = list(_strips(conn, holter, hide, subject, devices))
    report = _resource(
        "DiagnosticReport",
        status="preliminary",
        category=[
            {"coding": [{"system": _SECTION, "code": "EC", "display": "Electrocardiac (e.g., EKG, EEC, Holter)"}]}
        ],
        code={"coding": [{"system": LOINC, "code": "18754-2", "display": "Holter monitor study"}], "text": "Holter"},
        subject=subject,
        effectivePeriod=_period(holter.start_ns, holter.end_ns, hide),
        result=[{"reference": entry["fullUrl"]} for entry in (*figures, *strips)],
        conclusion=_conclusion(holter),
        **({} if hide.hidden else {"issued": iso_utc(now_ns)}),
    )
    entries = [report, patient, *devices.values(), *figures, *strips]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": entries,
        **({} if hide.hidden else {"timestamp": iso_utc(now_ns)}),
    }


def _resource(kind: str, **fields: Any) -> dict[str, Any]:
    identity = str(uuid.uuid4())
    return {"fullUrl": f"urn:uuid:{identity}", "resource": {"resourceType": kind, "id": identity, **fields}}


def _period(start_ns: int, end_ns: int, hide: Disguise) -> dict[str, str]:
    return {"start": iso_utc(hide.time(start_ns)), "end": iso_utc(hide.time(end_ns))}


def _figures(holter: Holter, hide: Disguise, subject: dict[str, str]) -> Iterator[dict[str, Any]]:
    total = holter.total
    rate = {"system": LOINC, "code": "8867-4", "display": "Heart rate"}
    minute = ("beats/minute", "/min")
    values: list[tuple[str, dict[str, str] | None, float | None, tuple[str, str]]] = [
        ("Mean heart rate", rate, total.mean_bpm, minute),
        ("Lowest heart rate (5 beats)", rate, total.lowest.bpm if total.lowest else None, minute),
        ("Highest heart rate (5 beats)", rate, total.highest.bpm if total.highest else None, minute),
        ("Recorded time", None, total.recorded_s / 3600, ("h", "h")),
        ("Readable time", None, total.readable_s / 3600, ("h", "h")),
        ("AF burden of readable time", None, _percent(total.af_share), ("%", "%")),
        ("Ventricular ectopic beats", None, total.beats["V"], ("{beats}", "{beats}")),
        ("Supraventricular ectopic beats", None, total.beats["S"], ("{beats}", "{beats}")),
        ("All beats", None, total.all_beats, ("{beats}", "{beats}")),
        ("Pauses", None, total.pauses, ("{pauses}", "{pauses}")),
        ("SDNN of NN intervals", None, total.hrv.sdnn_ms, ("ms", "ms")),
        ("RMSSD of NN intervals", None, total.hrv.rmssd_ms, ("ms", "ms")),
    ]
    for text, coding, value, (unit, code) in values:
        if value is None:
            continue
        yield _resource(
            "Observation",
            status="preliminary",
            category=[_category("procedure")],
            code={"text": text, **({"coding": [coding]} if coding else {})},
            subject=subject,
            effectivePeriod=_period(holter.start_ns, holter.end_ns, hide),
            valueQuantity={"value": round(float(value), 3), "unit": unit, "system": UCUM, "code": code},
        )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _category(code: str) -> dict[str, Any]:
    return {"coding": [{"system": _CATEGORY, "code": code}]}


def _strips(
    conn: Connection, holter: Holter, hide: Disguise, subject: dict[str, str], devices: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    by_id = {recording.id: recording for recording in holter.recordings}
    choices, _ = choose(holter)
    for choice in choices:
        recording = by_id.get(choice.recording_id)
        if recording is not None:
            yield _strip(conn, recording, choice, hide, subject, devices[recording.id])


def _strip(
    conn: Connection,
    recording: queries.Recording,
    choice: Choice,
    hide: Disguise,
    subject: dict[str, str],
    device: dict[str, Any],
) -> dict[str, Any]:
    first = first_sample(choice, recording.fs_hz, STRIP_S)
    last = min(first + round(STRIP_S * recording.fs_hz), recording.end_sample)
    samples = waveform.read(conn, recording.id, first, last).samples
    why = hide.text(choice.why) if choice.type == "symptom" else choice.why
    return _resource(
        "Observation",
        status="preliminary",
        category=[_category("procedure")],
        code={"coding": [ECG], "text": ", ".join(part for part in (NAMES[choice.type], why) if part)},
        subject=subject,
        device={"reference": device["fullUrl"]},
        effectivePeriod=_period(recording.to_utc_ns(first), recording.to_utc_ns(last), hide),
        component=[
            {"code": _lead_code(lead), "valueSampledData": sampled_data(row, uv, recording.fs_hz)}
            for lead, uv, row in zip(recording.leads, recording.uv_per_lsb, samples, strict=True)
        ],
        note=[{"text": f"Filter: {AS_RECORDED}. {ST_NOTE}. {FOOTER}."}],
    )


def _lead_code(lead: str) -> dict[str, Any]:
    code = LEADS.get(lead)
    coding = ECG if code is None else {"system": MDC, "code": code[0], "display": code[1]}
    return {"coding": [coding], "text": f"Lead {lead}"}


def sampled_data(row: Any, uv_per_lsb: float, fs_hz: float) -> dict[str, Any]:
    """Return R4 SampledData: digital values with their factor in mV; `E` where nothing was recorded."""
    values: Sequence[int] = np.asarray(row).tolist()
    return {
        "origin": {"value": 0, "unit": "mV", "system": UCUM, "code": "mV"},
        "period": round(1000 / fs_hz, 9),
        "factor": round(uv_per_lsb / 1000, 12),
        "dimensions": 1,
        "data": " ".join("E" if value == MISSING else str(value) for value in values),
    }


def _conclusion(holter: Holter) -> str:
    total = holter.total
    found = ", ".join(f"{len(episodes)} {rule}" for rule, episodes in sorted(holter.episodes.items())) or "no events"
    return f"{total.readable_s / 3600:.1f} h readable of {total.recorded_s / 3600:.1f} h recorded: {found}. {FOOTER}."
