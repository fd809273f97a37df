"""The rooms put together: from a delivery to findings in the database, whoever brings it (daemon or `import`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import structlog
from sqlalchemy import Connection

from edge import __version__
from edge.alerts.policy import Teller
from edge.analyst import REST_S, Analyst
from edge.clock import Clock
from edge.config import Config
from edge.encoder.library import choose_card
from edge.encoder.session import Encoder
from edge.intake import Intake, IntakeLimits, Stored
from edge.intake.intervals import IntervalIntake
from edge.rhythm.rules import Rules, rules_hash
from edge.store import findings, outbox, wearers
from edge.store.database import FILE_NAME, open_readonly
from edge.store.findings import Change
from edge.store.queries import Recording
from edge.store.rescue import rescue
from edge.store.writer import Writer

log = structlog.get_logger(__name__)


class Gateway:
    """Owns the writer, intake and the analyst of one state folder. Use it in one event loop."""

    def __init__(self, state: Path, config: Config, clock: Clock) -> None:
        """Lock the state folder, load the verified encoder, take up where the database left off.

        Raises `AnyecgError` if another process writes the folder, or the encoder cannot be loaded.
        """
        self.config = config
        self.clock = clock
        wanted = config.encoder
        card, self.precision = choose_card(wanted.model, wanted.precision, wanted.provider)
        engines = state / "engines"
        self.encoder = Encoder(card, provider=wanted.provider, threads=wanted.threads, engine_cache=engines)
        self.rescued = rescue(state, config.backup.folder, clock.utc_ns()) if (state / FILE_NAME).exists() else None
        self.state = state
        self.writer = Writer(state)
        self.reader = open_readonly(state)
        self._analyses: dict[str, int] = {}
        self.teller = Teller(config, self.analysis_name)
        self.analyst = Analyst(
            self.reader, self.writer, self.encoder, self.rules_of, clock, self._tell, self._analysis_of
        )
        self.on_stored: Callable[[Stored], None] = lambda stored: None
        self.intervals = IntervalIntake(self.writer, config.timezone)
        self.intake = self.new_intake("live", lambda stored: self.on_stored(stored))
        self.on_analysed: Callable[[], None] = lambda: None
        self.dropped_messages = 0
        self._work = asyncio.Event()
        self.configure(config)
        self.analyst.resume()
        self._work.set()

    @cache  # noqa: B019 (as many as wearers, as long as the gateway)
    def rules_of(self, wearer: str) -> Rules:
        """Return the rules of a wearer."""
        return self.config.rules_of(wearer)

    def analysis_name(self, wearer: str) -> str:
        """Return what reads the signal of a wearer: weights, rules, code."""
        return f"{self.encoder.card.checkpoint}/{self._rules_hash(wearer)}/{__version__}"

    @cache  # noqa: B019 (as `rules_of`)
    def _rules_hash(self, wearer: str) -> str:
        return rules_hash(self.rules_of(wearer))

    def _analysis_of(self, wearer: str) -> int:
        """Return the id of the analysis that reads a wearer's signal; writes it if it is new."""
        rules = self._rules_hash(wearer)
        if rules not in self._analyses:
            version = {
                "encoder": self.encoder.card.checkpoint,
                "weights_sha256": self.encoder.card.sha256,
                "rules_hash": rules,
                "code_version": __version__,
                "provider": f"{self.encoder.choice.name}, {self.encoder.runtime}",
            }
            now_ns = self.clock.utc_ns()
            job = self.writer.submit(lambda conn: findings.ensure_analysis(conn, version, now_ns))
            self._analyses[rules] = job.result()
        return self._analyses[rules]

    def new_intake(self, source: str, on_stored: Callable[[Stored], None]) -> Intake:
        """Return an intake for a "live" source or an "import"; two sources never share a device."""

        def stored(what: Stored) -> None:
            self._stored(what)
            on_stored(what)

        limits = IntakeLimits(max_devices=self.config.intake.max_devices)
        return Intake(
            self.writer,
            self.reader,
            self.clock,
            limits,
            lambda wearer: self.config.timezone(wearer),
            on_stored=stored,
            source=source,
        )

    def configure(self, config: Config) -> None:
        """Go by another configuration, of which `edge.reload` says what is in force; time zones are applied."""
        self.config = config
        self.teller.configure(config)
        zones = {name: person.timezone for name, person in config.wearers.items() if person.timezone is not None}
        self.writer.submit(lambda conn: wearers.set_timezones(conn, zones)).result()

    def close(self) -> None:
        """Commit what is queued and let go of the state folder."""
        self.reader.dispose()
        self.writer.close()

    async def analyse(self) -> None:
        """Analyse whatever becomes ready, for ever."""
        while True:
            await self.analyse_ready()
            with contextlib.suppress(TimeoutError):  # what failed is tried again without new data, too
                async with asyncio.timeout(REST_S):
                    await self._work.wait()
            self._work.clear()

    async def finish(self, recording_id: int, end_sample: int) -> None:
        """Say that a recording is complete and wait until all of it is analysed; `analyse` must be running."""
        if await asyncio.to_thread(self.analyst.is_finished, recording_id):
            return
        self.analyst.stored(recording_id, end_sample, ends=True)
        self._work.set()
        while not await asyncio.to_thread(self.analyst.is_finished, recording_id):
            await asyncio.sleep(0.05)

    async def analyse_ready(self) -> None:
        """Analyse until nothing more is ready."""
        while await asyncio.to_thread(self.analyst.run_batch):
            self.on_analysed()

    def _stored(self, stored: Stored) -> None:
        self.analyst.stored(stored.recording_id, stored.horizon_sample, changed=stored.changed_from is not None)
        self._work.set()

    def _tell(self, conn: Connection, recording: Recording, changes: Sequence[Change]) -> None:
        now_ns = self.clock.utc_ns()
        self.dropped_messages += outbox.add(conn, self.teller.messages(conn, recording, changes, now_ns), now_ns=now_ns)
