"""`anyecg localize`, `describe` and `compare`: the model that looks at ECG."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge.cli.app import JsonOption, app, console, errors, print_json, waiting
from edge.errors import BadInputError

if TYPE_CHECKING:
    from edge.assistant.look import Clip, Looker
    from edge.sources.record import Record


LeadOption = Annotated[str | None, typer.Option("--lead", help="Only this lead, by name or index.")]
FromOption = Annotated[float | None, typer.Option("--from", help="First second.")]
ToOption = Annotated[float | None, typer.Option("--to", help="Last second.")]


@app.command()
def localize(
    record: Annotated[Path | None, typer.Argument(help="A WFDB record (no extension) or EDF file.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="PVC, SVPB, LBBB, RBBB, paced, AF, VT, …")] = None,
    from_s: FromOption = None,
    to_s: ToOption = None,
    lead: LeadOption = None,
    questions: Annotated[Path | None, typer.Option("--questions", help="A file of questions instead.")] = None,
    out: Annotated[
        Path | None, typer.Option("--json", help="With --questions: where the answers go; `-` prints.")
    ] = None,
) -> None:
    """Mark where a label is, as the language model sees it: up to 60 s at once, longer recordings clip by clip."""
    if questions is not None:
        _localize_file(questions, out, lead)
        return
    if record is None or label is None:
        raise BadInputError("say which recording and what to mark: anyecg localize RECORD --label PVC")
    from edge.assistant.wording import label_of, told

    wanted = label_of(label)
    signal = _read(record, lead)
    start_s, end_s = _range(signal, from_s, to_s)
    from edge.assistant.look import open_looker
    from edge.assistant.soft import MAX_S

    looker = open_looker()
    if end_s - start_s > MAX_S:
        _localize_long(looker, signal, wanted, start_s, end_s, out)
        return
    spans = looker.spans(_clip(signal, start_s, end_s), wanted)
    placed = None if spans is None else [[round(start_s + a, 1), round(start_s + b, 1)] for a, b in spans]
    text = told(None if placed is None else [(a, b) for a, b in placed], wanted)
    answer = {"label": wanted, "spans": placed, "text": text, "source": "model", "model": looker.name}
    _answer(answer, text, out)


@app.command()
def describe(
    record: Annotated[Path, typer.Argument(help="A WFDB record (no extension) or EDF file.")],
    from_s: FromOption = None,
    to_s: ToOption = None,
    lead: LeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Describe up to 60 s of ECG in a sentence or two, as the language model sees it."""
    from dataclasses import asdict

    from edge.assistant.look import open_looker
    from edge.assistant.reports import read_report

    signal = _read(record, lead)
    start_s, end_s = _range(signal, from_s, to_s, longest=True)
    looker = open_looker()
    text = looker.report(_clip(signal, start_s, end_s))
    told = {"text": text, "attributes": asdict(read_report(text)), "from_s": start_s, "to_s": end_s}
    _answer(told | {"source": "model", "model": looker.name}, text, Path("-") if as_json else None)


@app.command()
def compare(
    records: Annotated[list[str], typer.Argument(help="Two to four recordings; PATH@FROM-TO takes seconds of one.")],
    question: Annotated[str | None, typer.Option("--question", help="What to ask about them.")] = None,
    lead: LeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two to four ECGs of up to 60 s together, as the language model sees them."""
    from edge.assistant.comparing import Comparison
    from edge.assistant.look import MAX_ECGS, open_looker

    if not 2 <= len(records) <= MAX_ECGS:
        raise BadInputError(f"compare takes 2 to {MAX_ECGS} recordings, not {len(records)}")
    clips = []
    for given in records:
        path, first, last = _place(given)
        signal = _read(path, lead)
        clips.append(_clip(signal, *_range(signal, first, last, longest=True)))
    looker = open_looker()
    comparison = Comparison(looker, clips)
    asked = [question] if question else [f"What changed from ECG {n} to ECG {n + 1}?" for n in range(1, len(clips))]
    told = [{"question": one, "text": comparison.answer(one)} for one in asked]
    answer = {"answers": told, "source": "model", "model": looker.name}
    _answer(answer, "\n".join(one["text"] for one in told), Path("-") if as_json else None)


def _answer(answer: dict[str, Any], text: str, out: Path | None) -> None:
    if out is None:
        console.print(text, markup=False, highlight=False)
        console.print("What the language model sees, not a diagnosis.", style="dim")
    elif str(out) == "-":
        print_json(answer)
    else:
        out.write_text(json.dumps(answer, ensure_ascii=False) + "\n", encoding="utf-8")


def _localize_long(looker: Looker, signal: Record, label: str, start_s: float, end_s: float, out: Path | None) -> None:
    from edge.assistant.hours import localize_long

    with waiting("the rhythm engine reads the recording, the model the clips that stand out"):
        told = localize_long(looker, signal, label, start_s, end_s)
    found = told["found"]
    lines = [
        f"{one['start_s']:.1f} s - {one['end_s']:.1f} s  {one['agreed']}{'' if one['read'] else ' (not read)'}"
        for one in found
    ]
    more = f", {told['left_s']:.0f} s more stood out" if told["left_s"] else ""
    lines.append(f"{len(found)} found; {told['read_s']:.0f} s of {told['length_s']:.0f} s read by the model{more}")
    _answer(told, "\n".join(lines), out)


def _localize_file(questions: Path, out: Path | None, lead: str | None) -> None:
    from edge.assistant.look import open_looker
    from edge.assistant.questions import load_questions
    from edge.assistant.wording import NAMES, told
    from edge.sources.data_folder import data_folder

    asked = load_questions(questions, NAMES)
    looker = open_looker()
    answers, last, signal = [], ("", ""), None
    for n, one in enumerate(asked):
        if (one["db"], one["record"]) != last or signal is None:
            last = (one["db"], one["record"])
            signal = _read(data_folder() / one["db"] / one["record"], lead)
        fs_hz = signal.fs_hz
        clip = _clip(signal, one["start_sample"] / fs_hz, one["end_sample"] / fs_hz)
        spans = looker.spans(clip, one["label"], str(one.get("question") or ""))
        answers.append({"spans": spans, "text": told(spans, one["label"])})
        if (n + 1) % 100 == 0:
            errors.print(f"{n + 1} of {len(asked)} questions", highlight=False)
    text = json.dumps(answers, ensure_ascii=False)
    if out is None or str(out) == "-":
        print_json(answers)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _read(path: Path, lead: str | None) -> Record:
    from edge.sources.record import read_record

    return read_record(path, None if lead is None else [int(lead) if lead.isdigit() else lead])


def _range(signal: Record, from_s: float | None, to_s: float | None, *, longest: bool = False) -> tuple[float, float]:
    """Return the seconds asked for; with `longest` at most what the model reads at once."""
    from edge.assistant.soft import MAX_S, MIN_S

    start_s = 0.0 if from_s is None else from_s
    end_s = signal.duration_s if to_s is None else min(to_s, signal.duration_s)
    if start_s < 0 or end_s - start_s < MIN_S:
        raise BadInputError(
            f"--from {start_s:g} --to {end_s:g}: give at least {MIN_S:g} s within its {signal.duration_s:.1f} s"
        )
    if longest and end_s - start_s > MAX_S:
        raise BadInputError(f"the model reads {MAX_S:g} s at once: give --from and --to (or PATH@FROM-TO)")
    return start_s, end_s


def _clip(signal: Record, start_s: float, end_s: float) -> Clip:
    from edge.assistant.look import Clip

    first, last = round(start_s * signal.fs_hz), round(end_s * signal.fs_hz)
    if not 0 <= first < last <= signal.n:
        raise BadInputError(f"{signal.name}: seconds {start_s:g} to {end_s:g} are not within {signal.duration_s:.1f} s")
    return Clip.of_samples(signal.samples[:, first:last], signal.uv_per_lsb, signal.fs_hz, signal.leads)


def _place(given: str) -> tuple[Path, float | None, float | None]:
    """Return path and seconds of `PATH` or `PATH@FROM-TO`."""
    path, at, seconds = given.rpartition("@")
    if not at:
        return Path(given), None, None
    parts: Sequence[str] = seconds.split("-")
    try:
        first, last = (float(part) for part in parts)
    except ValueError:
        raise BadInputError(f"{given}: after @ come two numbers of seconds, as in 100@30-40") from None
    return Path(path), first, last
