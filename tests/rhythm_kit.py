"""Frame scores for rhythm tests: scripted ones, and near-ideal ones made from real annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from edge.encoder.contract import BEAT_CLASSES, HOP_S, MODEL_FS_HZ, MORPHOLOGIES, RHYTHMS, HopScores
from edge.rhythm.events import Beat, Finding, HopResult, RhythmSpan, TrendMinute
from edge.rhythm.label import extend_spans
from edge.rhythm.rules import Rules
from edge.rhythm.session import RhythmSession
from edge.sources.data_folder import data_folder

DATA = data_folder()
FS_HZ = 250.0
AAMI = {
    **dict.fromkeys("NLRejB", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE!", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
WFDB_RHYTHM = {"AFIB": "AFIB", "AFL": "AFL", "SVTA": "SVTA", "VT": "VT", "VFL": "VF", "VFIB": "VF", "VF": "VF"}
WFDB_RHYTHM |= {"P": "P", "PM": "P", "ASYS": "ASYS"}


@dataclass
class Script:
    """What happens to the heart and the signal; times in seconds."""

    seconds: int
    beats: list[tuple[float, str]] = field(default_factory=list)
    rhythm: list[str] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    present: list[float] = field(default_factory=list)
    contact_off: set[int] = field(default_factory=set)
    clipped: set[int] = field(default_factory=set)
    amplitude_mv: list[float] = field(default_factory=list)
    faint: list[float] = field(default_factory=list)
    leads: int = 1
    noise: float = 0.0
    """Standard deviation of what is added to the scores."""
    seed: int = 0

    def __post_init__(self) -> None:
        self.rhythm = self.rhythm or ["N"] * self.seconds
        self.quality = self.quality or [0.95] * self.seconds
        self.present = self.present or [1.0] * self.seconds
        self.amplitude_mv = self.amplitude_mv or [1.0] * self.seconds

    def train(self, start_s: float, end_s: float, bpm: float, kind: str = "N") -> Script:
        """Add beats of one class at a fixed rate in [start, end)."""
        step = 60 / bpm
        count = int(np.ceil((end_s - start_s) / step - 1e-9))
        self.beats += [(start_s + i * step, kind) for i in range(count)]
        return self

    def cut(self, start_s: float, end_s: float) -> Script:
        """Remove the beats in [start, end)."""
        self.beats = [beat for beat in self.beats if not start_s <= beat[0] < end_s]
        return self

    def say(self, rhythm: str, start_s: int, end_s: int) -> Script:
        """Set the rhythm of the seconds in [start, end); AFIB shifts every other beat that has near neighbours."""
        self.rhythm[start_s:end_s] = [rhythm] * (end_s - start_s)
        if rhythm == "AFIB":
            times = [t for t, _ in self.beats]
            for i in range(1, len(times) - 1, 2):
                if start_s <= times[i] < end_s and times[i + 1] - times[i - 1] < 2:
                    self.beats[i] = (times[i] + 0.08, self.beats[i][1])
        return self

    def fill(self, values: list[float], value: float, start_s: int, end_s: int) -> Script:
        """Set one of the per-second lists in [start, end)."""
        values[start_s:end_s] = [value] * (end_s - start_s)
        return self

    def hops(self) -> list[HopScores]:
        """Return the frame scores of every hop."""
        rng = np.random.default_rng(self.seed)
        n = -(-self.seconds // HOP_S) * HOP_S
        ecg = self._ecg(rng, n)
        r_peak, beat, morphology = self._frames(rng, n)
        qrs = self._qrs(n)
        rhythm = np.full((n, len(RHYTHMS)), 0.02, np.float32)
        quality, present = np.full(n, np.nan, np.float32), np.zeros(n, np.float32)
        for j in range(self.seconds):
            rhythm[j, RHYTHMS.index(self.rhythm[j])] = 1 - 0.02 * (len(RHYTHMS) - 1)
            quality[j], present[j] = self.quality[j], self.present[j]
        rhythm = np.clip(rhythm + rng.normal(0, self.noise, rhythm.shape), 0, 1).astype(np.float32)
        rhythm[present == 0], quality[present == 0] = np.nan, np.nan
        for j in np.flatnonzero(present == 0).tolist():
            ecg[:, j * 128 : (j + 1) * 128], r_peak[j * 32 : (j + 1) * 32] = np.nan, 0
        off = np.isin(np.arange(n), list(self.contact_off))
        clipped = np.isin(np.arange(n), list(self.clipped)).astype(np.float32)
        return [
            HopScores(
                k=k,
                ecg=ecg[:, k * 256 : (k + 1) * 256],
                present=present[2 * k : 2 * k + 2],
                contact_off=off[2 * k : 2 * k + 2],
                clipped=clipped[2 * k : 2 * k + 2],
                r_peak=r_peak[64 * k : 64 * k + 64],
                beat=beat[64 * k : 64 * k + 64],
                morphology=morphology[64 * k : 64 * k + 64],
                rhythm=rhythm[2 * k : 2 * k + 2],
                quality=quality[2 * k : 2 * k + 2],
                qrs=qrs[256 * k : 256 * k + 256],
                embedding=np.zeros(192, np.float32),
            )
            for k in range(n // HOP_S)
        ]

    def _ecg(self, rng: np.random.Generator, n: int) -> NDArray[np.float32]:
        ecg = rng.normal(0, 0.02, (self.leads, n * MODEL_FS_HZ))
        for t, kind in self.beats:
            centre = t * MODEL_FS_HZ
            m = np.arange(max(0, round(centre) - 12), min(ecg.shape[1], round(centre) + 13))
            ecg[:, m] += np.exp(-0.5 * ((m - centre) / 1.7) ** 2)
            if kind == "V":
                ecg[:, m] -= 0.6 * np.exp(-0.5 * ((np.abs(m - centre) - 6) / 2.5) ** 2)
        scale = np.repeat(np.array([*self.amplitude_mv, *[1.0] * (n - self.seconds)]), MODEL_FS_HZ)
        return (ecg * scale).astype(np.float32)

    def _qrs(self, n: int) -> NDArray[np.float32]:
        """Return P(QRS): 86 ms around a beat, 164 ms around a V beat."""
        qrs = np.full(n * MODEL_FS_HZ, 0.02, np.float32)
        for t, kind in self.beats:
            reach = 10 if kind == "V" else 5
            centre = round(t * MODEL_FS_HZ)
            qrs[max(0, centre - reach) : centre + reach + 1] = 0.95
        return qrs

    def _frames(
        self, rng: np.random.Generator, n: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        frames = n * 32
        r_peak = np.zeros(frames)
        beat = np.full((frames, len(BEAT_CLASSES)), 0.02)
        beat[:, 0] = 0.92
        morphology = np.full((frames, len(MORPHOLOGIES)), 0.05)
        morphology[:, 0] = 0.8
        for t, kind, height in [(t, kind, 0.95) for t, kind in self.beats] + [(t, "N", 0.35) for t in self.faint]:
            position = t * 32 - 0.5
            i = np.arange(max(0, round(position) - 4), min(frames, round(position) + 5))
            r_peak[i] = np.maximum(r_peak[i], height * np.exp(-0.5 * ((i - position) / 1.2) ** 2))
            beat[i] = 0.02
            beat[i, BEAT_CLASSES.index(kind)] = 0.92
        r_peak = np.clip(r_peak + rng.normal(0, self.noise, frames) * (r_peak > 0.05), 0, 1)
        beat = np.clip(beat + rng.normal(0, self.noise, beat.shape), 1e-3, 1)
        beat /= beat.sum(axis=1, keepdims=True)
        return r_peak.astype(np.float32), beat.astype(np.float32), morphology.astype(np.float32)


@dataclass
class Run:
    """Everything a session gave, in order."""

    beats: list[Beat] = field(default_factory=list)
    told: list[tuple[int, Finding]] = field(default_factory=list)
    """Every finding with the hop that gave it; finish counts as one more hop."""
    trends: list[TrendMinute] = field(default_factory=list)
    spans: list[RhythmSpan] = field(default_factory=list)
    results: list[HopResult] = field(default_factory=list)

    def take(self, k: int, result: HopResult) -> None:
        self.beats += result.beats
        self.told += [(k, finding) for finding in result.findings]
        self.trends += result.trends
        extend_spans(self.spans, result.spans)
        self.results.append(result)

    def findings(self, rule: str | None = None) -> list[Finding]:
        """Return the last state of every finding, in the order they opened."""
        last = {f.id: f for _, f in self.told}
        return [f for f in last.values() if rule is None or f.rule == rule]

    def rules(self) -> set[str]:
        return {f.rule for f in self.findings()}


def session(
    rules: Rules | None = None, *, leads: int = 1, fs_hz: float = FS_HZ, state: bytes | None = None
) -> RhythmSession:
    return RhythmSession("wearer/device/1", fs_hz, ["I"] * leads, rules or Rules(), state)


def play(
    script: Script | Sequence[HopScores],
    rules: Rules | None = None,
    *,
    seconds: float | None = None,
    fs_hz: float = FS_HZ,
) -> Run:
    """Feed everything and finish."""
    hops = script.hops() if isinstance(script, Script) else script
    length_s = seconds or (script.seconds if isinstance(script, Script) else HOP_S * len(hops))
    fold = session(rules, leads=len(hops[0].ecg), fs_hz=fs_hz)
    run = Run()
    for hop in hops:
        run.take(hop.k, fold.feed(hop))
    run.take(len(hops), fold.finish(round(length_s * fs_hz)))
    return run


def record(
    name: str, *, start_s: float = 0, seconds: int = 300, noise: float = 0.05, seed: int = 0
) -> tuple[Script, float]:
    """Return near-ideal scores of a real record's annotations, and its rate; skips when it is absent.

    vfdb has no beats: none are made, except a regular narrow train where the rhythm is none of VT, VF and asystole.
    """
    path = DATA / name
    if not path.with_suffix(".atr").exists():
        pytest.skip(f"{name} is not in {DATA} (ECG_DATA): fetch the recordings first")
    annotation = wfdb.rdann(str(path), "atr")
    fs_hz = float(wfdb.rdheader(str(path)).fs)
    script = Script(seconds, noise=noise, seed=seed)
    times = annotation.sample / fs_hz - start_s
    marks = [(t, aux.strip("\0")[1:]) for t, aux in zip(times, annotation.aux_note, strict=True) if aux.startswith("(")]
    for (t, aux), (until, _) in zip(marks, [*marks[1:], (seconds, "")], strict=True):
        first, end = max(0, round(t)), min(seconds, round(until))
        if first < end:
            script.rhythm[first:end] = [WFDB_RHYTHM.get(aux, "N")] * (end - first)
            if aux == "NOISE":
                script.fill(script.quality, 0.1, first, end)
    script.beats = [
        (float(t), AAMI[symbol])
        for t, symbol in zip(times, annotation.symbol, strict=True)
        if symbol in AAMI and 0.1 < t < seconds - 0.1
    ]
    if not script.beats:
        script.train(0.4, seconds, 75)
        script.beats = [b for b in script.beats if script.rhythm[int(b[0])] in ("N", "P", "AFIB")]
    return script, fs_hz


def samples(times_s: Iterable[float], fs_hz: float = FS_HZ) -> list[int]:
    """Return times in samples."""
    return [round(t * fs_hz) for t in times_s]
