"""Others' clients, unmodified, stream from the emulated strap: what the emulation says is what a Polar H10 says."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from ble_kit import ADDRESS, bluetooth, bus, run, until
from bleak import BleakClient, BleakScanner
from bleakheart import BatteryLevel, HeartRate, PolarMeasurementData
from bluez.bus import PrivateBus
from bluez.straps import H10
from polar_python import PolarDevice
from polar_python.constants import PmdMeasurementType

__all__ = ["bus"]
SPEED = 10.0
SIGNAL = np.random.default_rng(5).integers(-8000, 8000, 130 * 300).astype(np.int32)


def sent(h10: H10, n: int) -> list[int]:
    return [int(v) for first, length in h10.sent for v in SIGNAL[first : first + length]][:n]


def test_bleakheart(bus: PrivateBus) -> None:
    async def scenario() -> None:
        h10 = H10(ADDRESS, SIGNAL, speed=SPEED)
        async with bluetooth(bus, h10):
            device = await BleakScanner.find_device_by_name(h10.name, timeout=60)
            assert device is not None
            async with BleakClient(device) as client:
                frames: list[Any] = []
                pmd = PolarMeasurementData(client, callback=frames.append)
                assert await pmd.available_measurements() == ["ECG", "ACC"]
                settings = await pmd.available_settings("ECG")
                assert (settings["SAMPLE_RATE"], settings["RESOLUTION"]) == ([130], [14])
                settings = await pmd.available_settings("ACC")
                assert settings["SAMPLE_RATE"] == [200, 100, 50, 25]
                assert settings["RANGE"] == [2, 4, 8]
                assert (await pmd.start_streaming("ECG"))[:2] == (0, "SUCCESS")
                assert (await pmd.start_streaming("ECG"))[0] == 6
                await until(lambda: len(frames) >= 20, what="frames")
                assert (await pmd.stop_streaming("ECG"))[0] == 0
                assert (await pmd.stop_streaming("ECG"))[0] == 6
                ecg = [value for kind, _, values in frames if kind == "ECG" for value in values]
                assert ecg == sent(h10, len(ecg))
                stamps = [stamp for _, stamp, _ in frames]
                assert np.allclose(np.diff(stamps), 73e9 / 130, atol=512)
                assert (await pmd.start_streaming("ACC", SAMPLE_RATE=25))[0] == 0
                await until(lambda: frames[-1][0] == "ACC", what="motion")
                assert frames[-1][2][0] == (20, -30, 990)
                beats: list[Any] = []
                heart = HeartRate(client, callback=beats.append)
                await heart.start_notify()
                await until(lambda: beats, what="heart rate")
                assert beats[0][2] == (61, 983)
                await heart.stop_notify()
                assert await BatteryLevel(client).read() == 80

    run(scenario())


def test_polar_python(bus: PrivateBus) -> None:
    async def scenario() -> None:
        h10 = H10(ADDRESS, SIGNAL, speed=SPEED)
        async with bluetooth(bus, h10):
            device = await BleakScanner.find_device_by_address(ADDRESS, timeout=60)
            assert device is not None
            async with PolarDevice(device) as polar:
                assert await polar.get_available_features() == [PmdMeasurementType.ECG, PmdMeasurementType.ACC]
                settings = await polar.request_stream_settings(PmdMeasurementType.ECG)
                assert [s.values for s in settings.settings] == [[130], [14]]
                ecg: list[int] = []
                await polar.start_ecg_stream(lambda data: ecg.extend(data.data), 130, 14)
                await until(lambda: len(ecg) >= 73 * 20, what="samples")
                await polar.stop_ecg_stream()
                await asyncio.sleep(0.1)
                assert ecg == sent(h10, len(ecg))

    run(scenario())
