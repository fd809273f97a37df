"""Run the benches.

    python -m bench                     all of them, then docs/bench.md and bench/results.json
    python -m bench live --wearers 50   one of them, with its own options (-h lists them)
    python -m bench report              docs/bench.md and bench/results.json; what did not run again stays

analyze   24 h of one lead from file to report, beside other packages
live      10 and 50 wearers in real time: latency, CPU, memory, queues
kill      the daemon killed 200 times
store     what keeping the signal costs
holter    24 h as Holter report and in every export format
ble       16 Bluetooth straps for 8 simulated hours, on the emulated BlueZ, with drops
soak      5 wearers for 24 simulated hours through mosquitto, a fault every minute or so
ask       the assistant on written questions: plans, answers, safety, time, memory, generation
storm     alert latency while the assistant is stormed with questions, beside without
alarms    alerts per hour and rule on annotated records, true and false apart; the CinC 2015 score
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.figures import FOLDER, Figures, write_json
from bench.machine import this_machine

NAMES = ("analyze", "live", "kill", "store", "holter", "ble", "soak", "alarms", "ask", "storm")
ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs/bench.md")
RESULTS = Path("bench/results.json")
TEXT = {
    "analyze": """Other packages run in the same run on the same hours, each as a process of its own, timed whole.""",
    "live": """Simulated wearables, each with an MQTT connection and a phase of its own, play sinus rhythm, VT, VF,
asystole, pauses, lost contact and bigeminy. "Last needed sample" is the one without which the hop that opened the
finding could not be read: from the publication of its chunk to the event at a subscriber. "Onset" is the truth of the
simulation; "signal alone" is the part until the last needed sample existed, which no machine makes shorter: the rule's
own time, the hop and the look-ahead of the window; the longest stands in brackets. Queues are sampled every second.""",
    "kill": """tests/test_kill.py, longer: after every kill each sample the wearable was told is committed is compared,
at the end every sample, beat, finding and alert with an undisturbed reading of the record.""",
    "store": """A random walk at 250 Hz, which compresses about as badly as ECG in 1 µV steps.""",
    "holter": """The hours are records of mitdb one after the other, imported beforehand; each file is a process of its
own, timed whole. Full disclosure draws every minute of the signal.""",
    "ble": """Straps on an emulated BlueZ, through unmodified bleak, into the daemon on a fast clock; frames and links
are lost at random. Milliseconds are real ones: at 20 times the speed a strap commits 20 times as often.""",
    "soak": """Five wearables at 60 times real time, one with a good link, the others losing, repeating, shuffling or
giving up chunks or starting anew; the gateway's own clock is real. A fault every 75 s of real time: SIGKILL (in the
first half), the broker restarted or away for an hour of signal, the subscriber away, the database locked, the disk
full, the clock an hour ahead. The size by the formula of docs/operations.md.""",
    "ask": """Questions with their plans, with scripted truth, and those that need a safe answer. Held out: written
before planner, tools and guard were, by who wrote those. Fresh: written later by somebody who knew the documentation
alone; at first sight, before anything was mended for them, 132 of 160 plans and 107 of 120 answers were right; three
batches of unsafe questions were answered safely 54 of 76, 22 of 40 and 14 of 25 times, each after the guard was mended
for the one before. A database with a day of beats is asked one question after the other.""",
    "storm": """The same run has minutes with and without a storm in turn, with a day of mitdb in the store that most
questions are about. Every asker asks the next question as soon as the last one is answered, so the seconds an answer
takes are mostly those of the others' turns.""",
    "alarms": """Findings by the shipped rules against the annotations (`bench/reference.py` says what counts as true),
before cooldown and quiet hours. DS2 and vfdb: first lead. These records were chosen for their arrhythmias, and findings
of ours per hour are no forecast for a home. cinc2015: monitor alarms of intensive care; true: the alarm was true and a
finding of its kind lies within the 10 s before it. Odd record numbers are never used to choose anything; score:
(TP + TN) / (TP + TN + FP + 5 FN).""",
}


def main() -> int:
    if len(sys.argv) > 1 and sys.argv[1] in NAMES:
        return run(sys.argv[1], sys.argv[2:])
    if sys.argv[1:] == ["report"]:
        report()
        return 0
    if len(sys.argv) > 1:
        print(__doc__)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    codes = {name: run(name, []) for name in NAMES}
    report()
    failed = [name for name, code in codes.items() if code]
    if failed:
        Console(stderr=True).print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def run(name: str, options: list[str]) -> int:
    """Run one bench in a process of its own; its JSON lies in build/bench afterwards."""
    command = [sys.executable, "-m", f"bench.{name}", *options]
    if name != "store":
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    machine = this_machine()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [_echo(line) for line in process.stdout]
    if process.returncode == 0:
        figures = Figures(f"Storing · {machine.line}", [""], [[line] for line in lines])
        write_json(ROOT / FOLDER / "store.json", figures, machine)
    return process.returncode


def report() -> None:
    """Write docs/bench.md and bench/results.json from the newest JSON of each bench; of others, what was there."""
    kept = json.loads((ROOT / RESULTS).read_text()) if (ROOT / RESULTS).exists() else {}
    fresh = {name: json.loads(path.read_text()) for name in NAMES if (path := ROOT / FOLDER / f"{name}.json").exists()}
    found = {name: (kept | fresh)[name] for name in NAMES if name in kept | fresh}
    parts = ["# Measured\n", "Written by `make bench` (`python -m bench`). Research software, not a medical device.\n"]
    for name, document in found.items():
        parts += [f"## {name}\n", TEXT[name] + "\n", _markdown(name, document)]
        parts += [f"Note: {note}.\n" for note in document.get("notes", [])]
        for one in document.get("runs", []):
            for detail in ("samples", "status"):  # they stay in build/bench
                one.pop(detail, None)
    (ROOT / PAGE).write_text("\n".join(parts), encoding="utf-8")
    (ROOT / RESULTS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    Console().print(f"{PAGE} and {RESULTS}: {', '.join(found) or 'nothing ran yet'}")


def _markdown(name: str, document: dict[str, Any]) -> str:
    if name == "store":
        figures = document["figures"]
        return "\n".join([f"{figures['title']}\n", "```", *[row[0] for row in figures["rows"]], "```\n"])
    if name == "analyze":
        return _analyze(document).as_markdown()
    return Figures(**document["figures"]).as_markdown()


def _analyze(document: dict[str, Any]) -> Figures:
    rows = [
        [
            run["tool"],
            f"{run['hours']:g}",
            f"{run['wall_s']:.1f}",
            f"{run['cpu_s']:.1f}",
            f"{run['realtime']:.0f}",
            f"{run['peak_mb']:.0f}",
            f"{run['beats']:,}",
            run["gives"],
        ]
        for run in document["runs"]
    ]
    title = f"One lead, whole process · {document['machine']}, load before {document['load_before']:.1f}"
    return Figures(title, ["tool", "hours", "wall s", "CPU s", "× real time", "peak MB", "beats", "gives"], rows)


def _echo(line: str) -> str:
    sys.stdout.write(line)
    sys.stdout.flush()
    return line.rstrip()


if __name__ == "__main__":
    sys.exit(main())
