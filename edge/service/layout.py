"""Where an installed gateway lies, below `/` or, to prepare an image, below another root.

/opt/anyecg/releases/<version>/    a virtual environment per version: code, weights and migrations
/opt/anyecg/current                the one that runs; the units know no other
/opt/anyecg/releases.json          what was installed when, its schema, and the backup taken before it
/etc/systemd/system/anyecg*        units and drop-ins
/etc/sysusers.d, /etc/dbus-1/system.d      the user, and what it may ask BlueZ
/etc/anyecg/                       credentials (root only)
/var/lib/anyecg/                   the state folder: database, config.toml, sockets, backups
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

USER = "anyecg"
PREFIX = Path("/opt/anyecg")
STATE = Path("/var/lib/anyecg")
UNITS = ("anyecg.service", "anyecg-assistant.service", "anyecg-web.service", "anyecg-backup.timer")
"""What is enabled; `anyecg-broker.service` only on request."""
BROKER = "anyecg-broker.service"
FILES = (*UNITS, "anyecg-backup.service", BROKER)
JETSON = ("anyecg.service.d/jetson.conf", "anyecg-assistant.service.d/jetson.conf")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one installation."""

    root: Path

    def at(self, path: Path) -> Path:
        """Where an absolute path of the installed system lies now."""
        return self.root / path.relative_to("/")

    @property
    def prefix(self) -> Path:
        return self.at(PREFIX)

    @property
    def releases(self) -> Path:
        return self.prefix / "releases"

    @property
    def current(self) -> Path:
        return self.prefix / "current"

    @property
    def history(self) -> Path:
        return self.prefix / "releases.json"

    @property
    def state(self) -> Path:
        return self.at(STATE)

    @property
    def units(self) -> Path:
        return self.at(Path("/etc/systemd/system"))

    @property
    def sysusers(self) -> Path:
        return self.at(Path("/etc/sysusers.d/anyecg.conf"))

    @property
    def dbus(self) -> Path:
        return self.at(Path("/etc/dbus-1/system.d/anyecg.conf"))

    @property
    def credentials(self) -> Path:
        return self.at(Path("/etc/anyecg"))


def shipped_units() -> Path:
    """Where the unit files lie: in the wheel beside this module, in a checkout in `systemd/`."""
    packaged = Path(str(resources.files("edge.service") / "units"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "systemd"
