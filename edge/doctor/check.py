"""One finding of the doctor: a stable code, one of five states, what was seen, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "degraded", "failing", "off", "unknown"]
STATES: tuple[State, ...] = ("failing", "degraded", "unknown", "off", "ok")
"""From what needs a person most."""

CODES: dict[str, tuple[State, str]] = {
    "config.ok": ("ok", ""),
    "config.invalid": ("failing", "correct the line it names; `anyecg config check` reads it again"),
    "config.secret_readable": ("failing", "chmod 600 the file it names"),
    "state.ok": ("ok", ""),
    "state.missing": ("unknown", "start the gateway (`anyecg run`), or choose another --state"),
    "state.open": ("degraded", "chmod 700 the state folder: others on this machine can read it"),
    "state.readonly": (
        "failing",
        "the disk is mounted read-only: look at `dmesg`, check the disk, mount it read-write",
    ),
    "daemon.ok": ("ok", ""),
    "daemon.off": ("off", "start it: `systemctl start anyecg` or `anyecg run`"),
    "daemon.degraded": ("degraded", "see what `anyecg status` says"),
    "daemon.failing": ("failing", "see what `anyecg status` and `journalctl -u anyecg` say"),
    "daemon.unknown": ("unknown", "start it once: `anyecg run`; if the clock was set back, wait or set it right"),
    "disk.ok": ("ok", ""),
    "disk.low": ("degraded", "free the disk or set retention.max_mb; until then the oldest signal goes"),
    "disk.full": ("failing", "free the disk now: what cannot be kept is not acknowledged"),
    "clock.ok": ("ok", ""),
    "clock.unsynchronised": ("degraded", "enable time synchronisation: `timedatectl set-ntp true`, or install chrony"),
    "clock.behind": ("failing", "the clock is behind what is stored: set it (`timedatectl set-time`), enable NTP"),
    "clock.unknown": ("unknown", "this system does not say whether its clock is synchronised"),
    "encryption.ok": ("ok", ""),
    "encryption.none": ("degraded", "put the state folder on LUKS or fscrypt (SECURITY.md): a stolen disk tells all"),
    "encryption.unknown": ("unknown", "this file system does not say; encrypt the disk below it"),
    "broker.ok": ("ok", ""),
    "broker.unreachable": ("failing", "start the broker or correct mqtt.url"),
    "broker.refused": ("failing", "check mqtt.username, mqtt.password_file, mqtt.ca_file and the broker's access list"),
    "bluetooth.ok": ("ok", ""),
    "bluetooth.off": ("off", "no Bluetooth device is bound (`anyecg devices add`), so it is not needed"),
    "bluetooth.missing": ("failing", "install bluez and plug an adapter in; `systemctl start bluetooth`"),
    "bluetooth.unpowered": ("failing", "switch it on: `bluetoothctl power on`; `rfkill unblock bluetooth`"),
    "model.ok": ("ok", ""),
    "model.wrong": ("failing", "reinstall anyecg-edge, or name another in encoder.model; `anyecg models verify`"),
    "provider.ok": ("ok", ""),
    "provider.fallback": (
        "degraded",
        "install onnxruntime-gpu and the driver it wants (docs/jetson.md), or ask for cpu",
    ),
    "provider.none": ("failing", "pip install 'anyecg-edge[cpu]' or 'anyecg-edge[gpu]'"),
    "database.ok": ("ok", ""),
    "database.none": ("unknown", "start the gateway once; a wearer appears with its first data"),
    "database.damaged": (
        "failing",
        "stop the gateway, touch database-is-damaged in the state folder, start it: it restores",
    ),
    "database.schema": ("failing", "start this version of the gateway once to migrate, or upgrade anyecg-edge"),
    "database.busy": ("unknown", "run doctor again: somebody had it locked"),
    "database.restored": ("degraded", "look at report.json in the damaged-… folder it names, then delete the folder"),
    "backup.ok": ("ok", ""),
    "backup.none": ("degraded", "`anyecg backup`, and enable the timer: `systemctl enable --now anyecg-backup.timer`"),
    "backup.old": ("degraded", "see why the timer does not run: `systemctl status anyecg-backup.timer`"),
    "backup.same_disk": ("degraded", "set backup.folder to another disk: this one takes the backups with it"),
    "device.ok": ("ok", ""),
    "device.late": ("degraded", "move the wearable closer to the gateway; check its battery"),
    "device.silent": ("off", "is it worn and charged? `anyecg devices test` for Bluetooth, its own settings for MQTT"),
    "device.none": ("unknown", "nothing has sent data yet: `anyecg demo`, or docs/wearable.md and docs/ble.md"),
}
"""Code → state, and what to do about it. Codes never change their meaning."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    code: str
    seen: str
    """What was seen, with figures."""

    @property
    def state(self) -> State:
        return CODES[self.code][0]

    @property
    def fix(self) -> str:
        return CODES[self.code][1]

    def as_json(self) -> dict[str, str]:
        return {"code": self.code, "state": self.state, "seen": self.seen, "fix": self.fix}


def worst(checks: Iterator[Check] | list[Check]) -> State:
    """Return the state that needs a person most; `unknown` if nothing was checked."""
    found = {check.state for check in checks}
    return next((state for state in STATES if state in found), "unknown")
