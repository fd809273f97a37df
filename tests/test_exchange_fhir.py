"""The FHIR bundle: valid R4, and its samples are the stored ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from exchange_kit import PERIOD, START, new_state, run, short_record, stored, value

from edge.chunk import MISSING
from edge.exchange.fhir import sampled_data
from edge.store.database import open_readonly


@pytest.fixture(scope="module")
def bundle(ecg_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("fhir")
    path, _ = short_record(ecg_data, folder)
    state = new_state(folder / "state")
    value(state, "import", path, "--wearer", "anna", "--device", "patch", "--start", START)
    run(state, "export", "--wearer", "anna", "--fhir", folder / "out.json", *PERIOD)
    return state, json.loads((folder / "out.json").read_text())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_validates_against_r4b(bundle: tuple[Path, dict[str, object]]) -> None:
    models = pytest.importorskip("fhir.resources.R4B.bundle")
    read = models.Bundle.model_validate(bundle[1])
    kinds = [entry.resource.get_resource_type() for entry in read.entry]
    assert kinds[:3] == ["DiagnosticReport", "Patient", "Device"]
    urls = {entry.fullUrl for entry in read.entry}
    report = read.entry[0].resource
    assert {result.reference for result in report.result} <= urls
    assert "not a medical device" in report.conclusion


def test_strips_are_the_stored_samples_in_mv(bundle: tuple[Path, dict[str, object]]) -> None:
    state, document = bundle
    engine = open_readonly(state)
    with engine.connect() as conn:
        recording, samples = stored(conn, "anna")
    engine.dispose()
    entries = [entry["resource"] for entry in document["entry"]]  # type: ignore[index]
    strips = [e for e in entries if e["resourceType"] == "Observation" and "component" in e]
    assert strips
    for strip in strips:
        assert strip["code"]["coding"][0] | {"display": ""} == {
            "system": "urn:iso:std:iso:11073:10101",
            "code": "131328",
            "display": "",
        }
        data = strip["component"][0]["valueSampledData"]
        assert data["period"] == pytest.approx(1000 / 360)
        assert data["factor"] == pytest.approx(0.005)
        values = [MISSING if v == "E" else int(v) for v in data["data"].split()]
        text = strip["effectivePeriod"]["start"].replace("Z", "")
        start_ns = int(np.datetime64(text, "ns").astype(np.int64))
        first = round((start_ns - recording.to_utc_ns(0)) * 360 / 1e9)
        at = next(n for n in (first, first + 1, first - 1) if samples[0, n : n + len(values)].tolist() == values)
        assert abs(at - first) <= 1  # FHIR instants have milliseconds


def test_missing_samples_are_e_and_lead_i_has_its_code(bundle: tuple[Path, dict[str, object]]) -> None:
    from edge.exchange.fhir import LEADS

    assert sampled_data(np.array([1, MISSING, -3]), 2.5, 250.0)["data"] == "1 E -3"
    assert LEADS["I"][0] == "131329"
    assert len({code for code, _ in LEADS.values()}) == 12
