"""Guarantee 1, power loss: the disk had a chunk, by fsync, before anybody was told that it is safe."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_kit import Daemon, Wearable, cut

from broker.mosquitto import Mosquitto
from edge.sources.payload import decode_ack
from edge.sources.record import read_record
from edge.sources.topics import ack_topic, chunk_topic

CHUNK = chunk_topic("anna", "patch").encode()
ACK = ack_topic("anna", "patch").encode()
WAL = "".join(f"\\x{byte:02x}" for byte in b"anyecg.sqlite-wal")
"""As strace -xx writes it."""
LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)")
RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. (?P<call>\w+) resumed>(?P<arguments>.*)")


def calls(trace: str) -> Iterator[tuple[int, str, str]]:
    """Yield (number of the line the call began at, name, arguments and result) as each system call ends."""
    begun: dict[tuple[str, str], tuple[int, str]] = {}
    for number, line in enumerate(trace.splitlines()):
        if match := LINE.match(line):
            pid, call, arguments = match["pid"], match["call"], match["arguments"]
            if arguments.endswith("<unfinished ...>"):
                begun[pid, call] = number, arguments.removesuffix("<unfinished ...>")
            else:
                yield number, call, arguments
        elif match := RESUMED.match(line):
            start, arguments = begun.pop((match["pid"], match["call"]))
            yield start, match["call"], arguments + match["arguments"]


def data(arguments: str) -> bytes:
    """The first buffer of a call traced with -xx."""
    text = re.search(r'"((?:\\x[0-9a-f]{2})*)"', arguments)
    return bytes.fromhex(text[1].replace("\\x", "")) if text else b""


def check(trace: str) -> dict[str, int]:
    """Follow every chunk from its arrival to its two acknowledgements; an fsync of the WAL lies between."""
    arrivals: list[int] = []
    by_mid: dict[bytes, int] = {}
    last_sync = -1
    counts = {"puback": 0, "ack": 0}
    for start, call, arguments in calls(trace):
        if call in ("fsync", "fdatasync"):
            if WAL in arguments and arguments.rstrip().endswith("= 0"):
                last_sync = max(last_sync, start)
            continue
        packet = data(arguments)
        if call.startswith("recv") and packet[2:].startswith(CHUNK):
            arrivals.append(start)
            by_mid[packet[2 + len(CHUNK) :][:2]] = start
        elif call.startswith("send") and packet[:2] == b"\x40\x02":
            counts["puback"] += 1
            assert last_sync > by_mid[packet[2:4]], f"PUBACK {packet[2:4]!r} without an fsync after its chunk"
        elif call.startswith("send") and packet[:1] == b"\x30" and ACK in packet:
            counts["ack"] += 1
            payload = packet[packet.index(ACK) + len(ACK) + 1 :]
            assert last_sync > arrivals[decode_ack(payload).seq], "end-to-end acknowledgement without an fsync"
    return {"chunks": len(arrivals), **counts}


@pytest.mark.usefixtures("mosquitto_path")
def test_an_fsync_lies_between_a_chunk_and_its_acknowledgements(ecg_data: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: sudo make system")
    record = cut(read_record(ecg_data / "mitdb/200"), 60)
    trace = tmp_path / "trace"
    wanted = "trace=recvfrom,sendto,sendmsg,fsync,fdatasync"
    wrap = [strace, "-f", "-y", "-xx", "-s", "160", "-e", wanted, "-o", str(trace)]
    with Mosquitto(tmp_path / "broker") as broker, Daemon(tmp_path / "state", broker.url, wrap) as daemon:
        daemon.start()
        daemon.wait_ready()
        wearable = Wearable(broker.url, record, speed=6, resend_s=60)  # every chunk once
        wearable.start()
        wearable.result()
        status: dict[str, Any] = daemon.status() or {}
        os.kill(status["daemon"]["pid"], signal.SIGTERM)
        assert daemon.process is not None
        daemon.process.wait(120)
    text = trace.read_text(errors="replace")
    counts = check(text)
    assert counts["chunks"] == counts["puback"] == 60
    assert counts["ack"] > 0
    without = "\n".join(line for line in text.splitlines() if "sync" not in line)
    with pytest.raises(AssertionError, match="without an fsync"):
        check(without)
