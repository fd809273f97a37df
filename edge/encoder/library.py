"""The encoder weights on this machine: those that came with the package and those in the state folder.

Whatever is fetched is pinned by the SHA-256 that the caller gives: a card pins its weights by the hash it names,
weights by themselves. Nothing becomes visible before its hash was right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge.encoder.card import Card, shipped_card
from edge.encoder.precision import Precision, choose_precision
from edge.encoder.provider import choose_provider, gpu_is_there
from edge.errors import AnyecgError, BadInputError

FOLDER = "models"
INT8 = "encoder-int8.json"
MAX_WEIGHTS_BYTES = 256 * 2**20
MAX_CARD_BYTES = 2**20
MAX_CARDS = 1_000
TIMEOUT_S = 30.0
"""Of one read from the network."""
_PART_BYTES = 2**18
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int], None]
"""Called with the bytes that have come in."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A card file, and what is wrong with it or its weights; nothing if `error` is empty."""

    path: Path
    card: Card | None
    error: str


def card_paths(state: Path) -> list[Path]:
    """Return the cards of the package, then those in the state folder, by name."""
    shipped = sorted(shipped_card().parent.glob("*.json"))
    return [*shipped, *sorted((state / FOLDER).glob("*.json"))][:MAX_CARDS]


def check(path: Path, *, weights: bool) -> Checked:
    """Read a card and, if asked, compare the hash of its weights."""
    card = None
    try:
        card = Card.load(path)
        if weights:
            card.verified_weights()
    except AnyecgError as error:
        return Checked(path, card, str(error))
    return Checked(path, card, "")


def choose_card(model: Path | None, precision: str, provider: str) -> tuple[Card, Precision]:
    """Return the card of the weights to load, and why those.

    model      a card or weights named in the configuration; they are taken as they are
    precision  see `edge.encoder.precision`
    provider   see `edge.encoder.provider`
    """
    card = Card.load(model)
    if model is not None:
        return card, Precision(str(card.facts.get("precision", "fp32")), "the model that encoder.model names")
    return of_precision(card, precision, provider)


def of_precision(card: Card, precision: str, provider: str) -> tuple[Card, Precision]:
    """Return the card itself or its int8 sister, and why."""
    path = card.path.parent / INT8
    int8 = Card.load(path) if precision != "fp32" and path.exists() else None
    chosen = choose_precision(
        precision,
        provider="cpu" if precision == "fp32" else _provider(provider),
        checkpoint=card.checkpoint,
        int8_checkpoint=None if int8 is None else int8.checkpoint,
    )
    return (int8 if chosen.name == "int8" and int8 is not None else card), chosen


def _provider(requested: str) -> str:
    from edge.encoder.session import available_providers

    return choose_provider(requested, available_providers(), has_gpu=gpu_is_there()).name


def pull(
    source: str,
    sha256: str,
    state: Path,
    *,
    max_bytes: int = MAX_WEIGHTS_BYTES,
    context: ssl.SSLContext | None = None,
    progress: Progress = lambda _: None,
) -> Card:
    """Bring a model into the state folder's `models` and return its card.

    Args:
        source: https URL or path of a card (.json; its weights lie beside it) or of weights (.onnx; a card beside
            them is taken if it names this hash, else one is made).
        sha256: hex digest that the file at `source` must have.
        state: the state folder.
        max_bytes: bound on the weights.
        context: TLS settings; None: the system's.
        progress: told of bytes as they come.

    Raises:
        BadInputError: the source is neither, is too large, or is not what its hash says; nothing is kept then.
        AnyecgError: it cannot be read or written.
    """
    digest = sha256.strip().lower()
    if not _SHA256.fullmatch(digest):
        raise BadInputError(f"--sha256 must be 64 hexadecimal digits, got {sha256[:80]!r}")
    name = _name(source)
    fetch = _Fetch(context, progress)
    folder = state / FOLDER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as work:
            facts = _complete(source, name, digest, Path(work), fetch, max_bytes)
            weights = Path(work) / str(facts["file"])
            _try(weights)
            card = weights.with_suffix(".json")
            card.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            for path in (weights, card):
                _sync(path)
            for path in (weights, card):  # the card last: it makes the model known
                os.replace(path, folder / path.name)
            _sync(folder)
    except OSError as error:
        raise AnyecgError(f"cannot keep a model in {folder}: {error.strerror or error}") from None
    return Card.load(folder / card.name)


def _complete(source: str, name: str, digest: str, work: Path, fetch: _Fetch, max_bytes: int) -> dict[str, Any]:
    """Fetch card and weights into `work`, hashes checked, and return the facts for the card."""
    if name.endswith(".json"):
        fetched = work / ".card"
        _must_be(fetch(source, fetched, MAX_CARD_BYTES), digest, source)
        facts = _facts(fetched, source)
        weights = str(facts["file"])
        if not (_NAME.fullmatch(weights) and weights.endswith(".onnx")):
            raise BadInputError(f"{source} names the weights {weights[:80]!r}; a plain name ending in .onnx is wanted")
        beside = _beside(source, weights)
        _must_be(fetch(beside, work / weights, max_bytes), str(facts["sha256"]).lower(), beside)
        return facts
    _must_be(fetch(source, work / name, max_bytes), digest, source)
    beside = _beside(source, name.removesuffix(".onnx") + ".json")
    made = {
        "checkpoint": digest[:12],
        "what": f"{name}, pulled without a card: nothing is known about it",
        "file": name,
        "sha256": digest,
        "thresholds": {},
    }
    try:
        fetch(beside, work / ".card", MAX_CARD_BYTES)
        facts = _facts(work / ".card", beside)
    except AnyecgError:
        return made
    return facts if facts["file"] == name and str(facts["sha256"]).lower() == digest else made


class _Fetch:
    """Copies a file or an https resource, bounded, and returns its hash."""

    def __init__(self, context: ssl.SSLContext | None, progress: Progress) -> None:
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context or ssl.create_default_context()), _HttpsOnly()
        )
        self._progress = progress

    def __call__(self, source: str, target: Path, max_bytes: int) -> str:
        digest = hashlib.sha256()
        size = 0
        with closing(self._open(source)) as stream, target.open("wb") as out:
            while part := self._read(stream, source):
                size += len(part)
                if size > max_bytes:
                    raise BadInputError(f"{source} is larger than {max_bytes} bytes: it is not taken")
                digest.update(part)
                out.write(part)
                self._progress(len(part))
        return digest.hexdigest()

    def _open(self, source: str) -> IO[bytes]:
        if not _is_url(source):
            try:
                return Path(source).expanduser().open("rb")
            except OSError as error:
                raise BadInputError(f"{source} cannot be read: {error.strerror}") from None
        if not source.startswith("https://"):
            raise BadInputError(f"{source}: models are taken over https only, or from a file")
        try:
            stream: IO[bytes] = self._opener.open(source, timeout=TIMEOUT_S)
        except (OSError, ValueError) as error:
            raise AnyecgError(f"{source} cannot be fetched: {error}") from None
        return stream

    def _read(self, stream: IO[bytes], source: str) -> bytes:
        try:
            return stream.read(_PART_BYTES)
        except OSError as error:
            raise AnyecgError(f"{source} cannot be read: {error}") from None


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_url(source: str) -> bool:
    return "://" in source


def _name(source: str) -> str:
    """Return the file name of a source."""
    path = urllib.parse.urlsplit(source).path if _is_url(source) else source
    name = Path(path).name
    if not (_NAME.fullmatch(name) and name.endswith((".json", ".onnx"))):
        raise BadInputError(f"{source} is neither a card (.json) nor weights (.onnx) with a plain name")
    return name


def _beside(source: str, name: str) -> str:
    return urllib.parse.urljoin(source, name) if _is_url(source) else str(Path(source).expanduser().parent / name)


def _must_be(actual: str, wanted: str, source: str) -> None:
    if actual != wanted:
        raise BadInputError(f"{source} has sha256 {actual}, wanted {wanted}: it is not taken")


def _facts(path: Path, source: str) -> dict[str, Any]:
    """Return a card's content, checked to be one."""
    try:
        return dict(Card.load(path).facts)
    except AnyecgError as error:
        raise BadInputError(f"{source} is no model card: {error}") from None


def _try(weights: Path) -> None:
    """Load weights once on the CPU; `BadInputError` if they are no encoder."""
    from edge.encoder.session import Encoder

    facts = {"checkpoint": "trial", "file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    card = weights.parent / ".trial"
    card.write_text(json.dumps(facts), encoding="utf-8")
    try:
        Encoder(Card.load(card), provider="cpu")
    except Exception as error:
        # ONNX Runtime raises whatever its parser raises; every such failure means "no encoder".
        told = str(error).strip().splitlines()
        raise BadInputError(
            f"{weights.name} is no encoder: {told[0][:200] if told else type(error).__name__}"
        ) from None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
