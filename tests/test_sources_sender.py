"""Replay and sender against a real mosquitto and a gateway that commits, forgets and dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alerts_kit import until
from mosquitto_kit import Broker, mosquitto, needs_mosquitto, subscriptions

from edge.chunk import MISSING, Chunk, Delivery
from edge.cli import register
from edge.cli.app import main
from edge.clock import ManualClock, SystemClock
from edge.config import Mqtt
from edge.errors import BadInputError
from edge.sources import link
from edge.sources.faults import Faults
from edge.sources.mqtt import MqttSource
from edge.sources.pace import Block, send_blocks
from edge.sources.payload import REASONS, decode
from edge.sources.record import Record, read_record
from edge.sources.replay import blocks, replay_stream, start_for_end_at
from edge.sources.sender import Run, Sender, SendError

pytestmark = needs_mosquitto


class Gateway:
    """The least a gateway does: keeps chunks by sequence number and acknowledges what is complete, up to a limit."""

    def __init__(self, broker: Broker, limit: float = float("inf")) -> None:
        self._limit = limit
        self.kept: dict[int, dict[int, Chunk]] = {}
        self.order: list[int] = []
        self._source = MqttSource(Mqtt(url=broker.url), gateway="g", offer=self._offer, clock=SystemClock())
        subscribed = subscriptions(self._source)
        self._source.start()
        until(lambda: subscribed)

    def _offer(self, delivery: Delivery) -> bool:
        chunk = delivery.chunk
        if len(self.order) >= self._limit:
            return False
        kept = self.kept.setdefault(chunk.boot, {})
        kept[chunk.seq] = chunk
        self.order.append(chunk.seq)
        delivery.committed()
        upto = chunk.oldest - 1
        while upto + 1 in kept:
            upto += 1
        if upto >= 0:
            self._source.publish_ack(chunk.wearer, chunk.device, chunk.boot, upto)
        return True

    def close(self) -> None:
        self._source.stop()


@contextmanager
def gateway(broker: Broker) -> Iterator[Gateway]:
    subject = Gateway(broker)
    try:
        yield subject
    finally:
        subject.close()


def record(n: int = 1000, fs_hz: float = 250.0) -> Record:
    samples = np.arange(2 * n, dtype=np.int32).reshape(2, n)
    return Record("r", ("II", "V1"), fs_hz, (5.0, 2.0), samples, None, Path("r"))


def rebuilt(chunks: dict[int, Chunk], stream: Run, n: int) -> np.ndarray:
    """The samples on the stream's grid [leads, n], by device stamps alone."""
    result = np.full((len(stream.leads), n), MISSING, np.int32)
    for chunk in chunks.values():
        start = round((chunk.device_time_ns - stream.device_time_ns) * chunk.fs_hz / 1e9)
        assert stream.offset_ns(start) == chunk.device_time_ns - stream.device_time_ns
        assert chunk.utc_ns == chunk.device_time_ns
        result[:, start : start + chunk.n] = chunk.samples
    return result


def send_all(broker: Broker, subject: Record, stream: Run, chunk_s: float = 0.2, **options: Any) -> dict[str, Any]:
    with Sender(Mqtt(url=broker.url), stream, **options) as sender:
        for block in blocks(subject, chunk_s):
            sender.send(*block)
        sender.finish()
        return sender.snapshot()


def test_every_sample_arrives_once_acknowledged() -> None:
    subject = record()
    subject.samples[:, 100:200] = MISSING
    subject.samples[0, 300:350] = MISSING
    stream = replay_stream(subject, wearer="anna", device="patch", start_utc_ns=1_700_000_000_000_000_000)
    with mosquitto() as broker, gateway(broker) as there:
        counters = send_all(broker, subject, stream, resend_s=60)
        kept = there.kept[stream.boot]
        assert np.array_equal(rebuilt(kept, stream, subject.n), subject.samples)
        assert counters["unacknowledged"] == counters["resent"] == 0
        assert counters["chunks"] == counters["transmitted"] == len(kept) == 18  # two blocks were all missing
        assert sorted(kept) == list(range(18))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_loss_duplicates_and_shuffling_are_repaired(protocol: Any) -> None:
    subject = record(4000)
    stream = replay_stream(subject, wearer="anna", device="patch", start_utc_ns=10**18)
    with mosquitto() as broker, gateway(broker) as there:
        faults = Faults(seed=3, lose=0.1, duplicate=0.1, shuffle=5)
        with Sender(Mqtt(url=broker.url, protocol=protocol), stream, faults=faults, window=32, resend_s=0.3) as sender:
            for block in blocks(subject, 0.2):
                sender.send(*block)
            sender.finish()
            assert sender.snapshot()["resent"] > 0
        assert np.array_equal(rebuilt(there.kept[stream.boot], stream, subject.n), subject.samples)
        assert there.order != sorted(there.order)


def test_what_the_sender_gives_up_does_not_hold_the_rest_back() -> None:
    subject = record(4000)
    stream = replay_stream(subject, wearer="anna", device="patch", start_utc_ns=10**18)
    with mosquitto() as broker, gateway(broker) as there:
        counters = send_all(broker, subject, stream, faults=Faults(seed=1, give_up=0.2), resend_s=60)
        kept = there.kept[stream.boot]
        assert counters["given_up"] == 80 - len(kept) > 5
        missing = (rebuilt(kept, stream, subject.n) == MISSING).all(axis=0).sum()
        assert missing == counters["given_up"] * 50


def test_an_outage_of_the_broker_and_the_gateway_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BACKOFF_S", 0.1)
    subject = record(15_000)
    stream = replay_stream(subject, wearer="anna", device="patch", start_utc_ns=10**18)
    result: list[Any] = []
    with mosquitto() as broker:
        first = Gateway(broker, limit=50)
        worker = threading.Thread(
            target=lambda: result.append(send_all(broker, subject, stream, window=10, resend_s=0.5, chunk_s=0.1))
        )
        worker.start()
        while len(first.order) < 50:
            time.sleep(0.001)
        first.close()
        time.sleep(0.2)
        broker.kill()
        time.sleep(0.3)
        broker.start()
        with gateway(broker) as second:
            worker.join(120)
            assert result, "the sender is stuck"
            kept = {**first.kept.get(stream.boot, {}), **second.kept[stream.boot]}
            assert np.array_equal(rebuilt(kept, stream, subject.n), subject.samples)


def test_memory_is_bounded_and_silence_is_an_error() -> None:
    subject = record(5000)
    stream = replay_stream(subject, wearer="anna", device="patch", start_utc_ns=10**18)
    with mosquitto() as broker, Sender(Mqtt(url=broker.url), stream, window=7, patience_s=0.6) as sender:
        assert sender._link.wait_connected(60)
        with pytest.raises(SendError, match="anyecg run"):
            send_blocks(blocks(subject, 0.2), sender, fs_hz=250, speed=0, clock=SystemClock(), sleep=time.sleep)
        assert sender.snapshot()["unacknowledged"] == 7
    with Sender(Mqtt(url="mqtt://127.0.0.1:1"), stream, window=7, patience_s=0.6) as sender:
        sender.send(0, subject.samples[:, :10])
        with pytest.raises(SendError, match="no connection"):
            sender.finish()


def _refusal(broker: Broker) -> str:
    stream = replay_stream(record(), wearer="anna", device="patch", start_utc_ns=10**18)
    try:
        with Sender(Mqtt(url=broker.url), stream) as sender:
            sender.send(0, record().samples[:, :10])
            sender.finish()
    except SendError as error:
        return str(error)
    return "not refused"


def test_refusals_are_told_at_once(tmp_path: Path) -> None:
    with mosquitto(passwords={"a": "b"}) as broker:
        assert "Not authorized" in _refusal(broker)
    access = tmp_path / "acl"
    access.write_text("topic readwrite elsewhere/#\n")
    with mosquitto(f"acl_file {access}") as broker:
        assert "refuses chunks of anna/patch: Not authorized" in _refusal(broker)


def test_pace_follows_the_clock_and_zero_does_not_wait() -> None:
    class Sink:
        def __init__(self) -> None:
            self.times: list[float] = []

        def send(self, start: int, samples: np.ndarray, contact: bool | None = None) -> None:
            self.times.append(round(clock.monotonic_s(), 6))

    def run(speed: float) -> list[float]:
        sink = Sink()
        begin = clock.monotonic_s()
        parts = [Block(i * 250, np.zeros((1, 250), np.int32)) for i in range(4)]
        send_blocks(parts, sink, fs_hz=250, speed=speed, clock=clock, sleep=clock.advance)
        return [round(t - begin, 6) for t in sink.times]

    clock = ManualClock()
    assert run(1) == [1, 2, 3, 4]
    assert run(8) == [0.125, 0.25, 0.375, 0.5]
    assert run(0) == [0, 0, 0, 0]
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(BadInputError):
            run(wrong)


def test_the_last_sample_is_now_when_the_replay_ends() -> None:
    subject = record(2500)  # 10 s
    now = 10**18
    assert start_for_end_at(subject, now, 1) == now
    assert start_for_end_at(subject, now, 10) == now - 9_000_000_000
    assert start_for_end_at(subject, now, 0) == now - 10_000_000_000


def test_impossible_chunk_sizes_and_starts_are_refused() -> None:
    for chunk_s in (0, -1, 11, float("nan")):
        with pytest.raises(BadInputError):
            list(blocks(record(), chunk_s))
    with pytest.raises(BadInputError, match="1970"):
        replay_stream(record(), wearer="a", device="b", start_utc_ns=-1)


def _cli() -> list[str]:
    """Only the `send` group: the other groups are not this test's business."""
    code = (
        "import sys; from edge.cli import register; register.GROUPS = ('send',)\n"
        "from edge.cli.app import main; sys.argv[0] = 'anyecg'; main()"
    )
    return [sys.executable, "-c", code]


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_cli(), *arguments], capture_output=True, text=True, timeout=120)


def test_the_replay_command_sends_a_real_record(ecg_data: Path) -> None:
    with mosquitto() as broker, gateway(broker) as there:
        done = run_cli(
            "replay", str(ecg_data / "vfdb/422"), "--mqtt", broker.url, "--wearer", "w422", "--lead", "0",
            "--speed", "0", "--chunk-s", "4", "--start", "2025-01-14T22:00:00+01:00", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["chunks"] == 525 == len(next(iter(there.kept.values())))
        assert answer["start_utc_ns"] == 1_736_888_400_000_000_000
        assert answer["unacknowledged"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay", "none", "--wearer", "anna"], "no such record"),
        (["simulate", "--script", "nothing", "--wfdb", "x"], "tour, sinus"),
        (["simulate"], "--mqtt URL"),
        (["simulate", "--mqtt", "http://x"], "mqtt://HOST"),
        (["simulate", "--mqtt", "mqtt://u:p@x"], "credentials"),
        (["simulate", "--wfdb", "x", "--fs", "9"], "50-2000"),
        (["simulate", "--mqtt", "mqtt://x", "--wearer", "Anna Müller"], "wearer 'Anna Müller' must match"),
        (["simulate", "--mqtt", "mqtt://x", "--speed", "-1"], "speed -1 is impossible"),
        (["simulate", "--mqtt", "mqtt://x", "--chunk-s", "60"], "chunks of 60 s are impossible"),
    ],
)
def test_the_commands_explain_bad_usage(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(register, "GROUPS", ("send",))
    monkeypatch.setattr(sys, "argv", ["anyecg", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_the_simulate_command_sends_what_it_writes(tmp_path: Path) -> None:
    with mosquitto() as broker, gateway(broker) as there:
        done = run_cli(
            "simulate", "--mqtt", broker.url, "--wearer", "sim", "--speed", "0", "--seed", "5", "--duration", "275",
            "--wfdb", str(tmp_path), "--truth", str(tmp_path), "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        written = read_record(tmp_path / "tour")
        chunks = next(iter(there.kept.values()))
        joined = np.concatenate([chunks[seq].samples for seq in sorted(chunks)], axis=1)
        assert np.array_equal(joined, written.samples)
        assert {chunk.contact for chunk in chunks.values()} == {True, False}
        truth = json.loads((tmp_path / "tour.truth.json").read_text())
        assert truth["start_utc_ns"] == answer["start_utc_ns"] == chunks[0].utc_ns


def _wearable_page() -> str:
    return (Path(__file__).parent.parent / "docs/wearable.md").read_text()


def test_the_page_for_makers_tells_the_truth() -> None:
    page = _wearable_page()
    example = page.split("```json\n")[1].split("```")[0]
    assert decode(example.encode(), "anna", "diy").samples.tolist() == [[-12, -9, -3, 4, MISSING, 18]]
    for reason in REASONS:
        assert f"`{reason}`" in page


def test_the_sender_on_that_page_works() -> None:
    code = _wearable_page().split("```python\n")[1].split("```")[0]
    with mosquitto() as broker, gateway(broker) as there:
        seconds = iter(range(5))
        scope: dict[str, Any] = {"read_samples": lambda n: [next(seconds)] * n}
        code = code.replace('connect("127.0.0.1")', f'connect("127.0.0.1", {broker.port})')
        with pytest.raises(StopIteration):
            exec(code, scope)
        deadline = time.monotonic() + 60
        while scope["held"] and time.monotonic() < deadline:
            time.sleep(0.01)
        scope["client"].disconnect()
        scope["client"].loop_stop()
        assert scope["held"] == {}
        kept = there.kept[scope["boot"]]
        assert [kept[seq].samples[0, 0] for seq in range(5)] == [0, 1, 2, 3, 4]


def test_an_hour_without_a_broker_is_no_reason_to_send_everything_again_and_again() -> None:
    """Each wait begins with the last attempt: what was missed while there was no broker is not made up for."""
    clock = ManualClock()
    stream = Run("anna", "patch", ("II",), 250.0, (1.0,), utc_ns=clock.utc_ns())
    with mosquitto() as broker, Sender(Mqtt(url=broker.url), stream, clock=clock) as sender:
        assert sender._link.wait_connected(60)
        broker.kill()
        until(lambda: sender.snapshot()["state"] != "connected")
        for start in range(0, 5000, 250):
            sender.send(start, np.arange(250, dtype=np.int32)[None])
        clock.advance(3600)
        broker.start()
        until(lambda: sender.snapshot()["transmitted"] >= 20)
        time.sleep(1.5)
        assert sender.snapshot()["transmitted"] == 20
        clock.advance(6)  # and the first wait is the short one
        until(lambda: sender.snapshot()["transmitted"] >= 40)
