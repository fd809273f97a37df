"""`anyecg models`: what is listed, what is refused, and that nothing unpinned ever becomes visible."""

from __future__ import annotations

import hashlib
import http.server
import importlib
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from encoder_kit import tiny_card
from typer.testing import CliRunner

from edge.cli.app import app
from edge.encoder import library
from edge.encoder.card import Card
from edge.encoder.precision import choose_precision
from edge.errors import AnyecgError, BadInputError

importlib.import_module("edge.cli.models")


def run(state: Path, *args: str) -> Any:
    return CliRunner().invoke(app, ["models", *args, "--state", str(state)])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the card and weights of a tiny encoder."""
    folder = tmp_path / "source"
    folder.mkdir()
    tiny_card(folder, seed=3)
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def left(state: Path) -> list[str]:
    return sorted(path.name for path in (state / library.FOLDER).glob("*"))


def test_every_shipped_model_is_listed_and_is_what_its_card_says(state: Path) -> None:
    listed = json.loads(run(state, "list", "--json").stdout)
    assert {one["name"] for one in listed} >= {"encoder"}
    (active,) = [one for one in listed if one["active"]]
    assert (active["name"], active["precision"]) == ("encoder", "fp32")
    for one in listed:
        assert one["error"] == ""
        assert all(one[key] for key in ("what", "metrics", "limits"))
        assert one["size_bytes"] > 100_000
    assert run(state, "verify").exit_code == 0


def test_the_precisions_of_one_checkpoint_share_its_identity() -> None:
    shipped = Card.load()
    int8, why = library.choose_card(None, "int8", "cpu")
    if int8.path == shipped.path:
        assert "int8" in why.reason  # none is shipped, or it is of older weights: the reason says so
        return
    assert int8.checkpoint == shipped.checkpoint
    assert int8.sha256 != shipped.sha256


@pytest.mark.parametrize("name", ["tiny.json", "tiny.onnx"])
def test_a_pulled_model_is_verified_and_becomes_active_when_it_is_named(source: Path, state: Path, name: str) -> None:
    result = run(state, "pull", str(source / name), "--sha256", sha256(source / name), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["name"], told["checkpoint"], told["active"]) == ("tiny", "tiny-3", False)
    assert left(state) == ["tiny.json", "tiny.onnx"]
    (state / "config.toml").write_text('[encoder]\nmodel = "models/tiny.onnx"\n')
    assert [one["name"] for one in json.loads(run(state, "list", "--json").stdout) if one["active"]] == ["tiny"]
    assert library.choose_card(state / "models/tiny.onnx", "int8", "cpu")[0].checkpoint == "tiny-3"


def test_weights_without_a_card_get_one_that_claims_nothing(source: Path, state: Path) -> None:
    (source / "tiny.json").unlink()
    card = library.pull(str(source / "tiny.onnx"), sha256(source / "tiny.onnx"), state)
    assert card.checkpoint == sha256(source / "tiny.onnx")[:12]
    assert "nothing is known" in card.facts["what"]


def test_a_wrong_hash_is_refused_and_leaves_nothing(source: Path, state: Path) -> None:
    for name in ("tiny.json", "tiny.onnx"):
        with pytest.raises(BadInputError, match="sha256"):
            library.pull(str(source / name), "0" * 64, state)
    with pytest.raises(BadInputError, match="64 hexadecimal digits"):
        library.pull(str(source / "tiny.onnx"), "abc", state)
    assert left(state) == []


def test_weights_that_are_not_their_cards_are_refused(source: Path, state: Path) -> None:
    (source / "tiny.onnx").write_bytes(b"other bytes")
    with pytest.raises(BadInputError, match="wanted"):
        library.pull(str(source / "tiny.json"), sha256(source / "tiny.json"), state)
    with pytest.raises(BadInputError, match="no encoder"):
        library.pull(str(source / "tiny.onnx"), sha256(source / "tiny.onnx"), state)
    assert left(state) == []


@pytest.mark.parametrize("file", ["../evil.onnx", "/tmp/evil.onnx", ".hidden.onnx", "evil.sh"])
def test_a_card_cannot_place_its_weights_elsewhere(source: Path, state: Path, file: str) -> None:
    facts = json.loads((source / "tiny.json").read_text()) | {"file": file}
    (source / "tiny.json").write_text(json.dumps(facts))
    with pytest.raises(BadInputError, match="plain name"):
        library.pull(str(source / "tiny.json"), sha256(source / "tiny.json"), state)
    assert left(state) == []


def test_too_large_and_unknown_sources_are_refused(source: Path, state: Path) -> None:
    weights = source / "tiny.onnx"
    with pytest.raises(BadInputError, match="larger than 1000 bytes"):
        library.pull(str(weights), sha256(weights), state, max_bytes=1000)
    for bad in ("http://localhost/tiny.onnx", "ftp://localhost/tiny.onnx"):
        with pytest.raises(BadInputError, match="https only"):
            library.pull(bad, "0" * 64, state)
    with pytest.raises(BadInputError, match="neither a card"):
        library.pull(str(source / "tiny.bin"), "0" * 64, state)
    with pytest.raises(BadInputError, match="cannot be read"):
        library.pull(str(source / "missing.onnx"), "0" * 64, state)
    assert left(state) == []


def test_a_replaced_file_is_found_by_verify(source: Path, state: Path) -> None:
    library.pull(str(source / "tiny.json"), sha256(source / "tiny.json"), state)
    assert run(state, "verify", "tiny").exit_code == 0
    weights = state / library.FOLDER / "tiny.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    result = run(state, "verify", "tiny", "--json")
    assert isinstance(result.exception, AnyecgError)
    assert "not the ones of their card" in json.loads(result.stdout)[0]["error"]
    assert isinstance(run(state, "verify", "no-such").exception, BadInputError)


class _Server:
    def __init__(self, folder: Path, cert: Path, key: Path) -> None:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/moved.onnx":
                    self.send_response(302)
                    self.send_header("Location", "http://localhost/tiny.onnx")
                    self.end_headers()
                    return
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def served(source: Path, tmp_path: Path) -> Iterator[tuple[str, ssl.SSLContext]]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    server = _Server(source, cert, key)
    yield server.url, ssl.create_default_context(cafile=str(cert))
    server.close()


def test_https_with_a_checked_certificate(source: Path, state: Path, served: tuple[str, ssl.SSLContext]) -> None:
    url, trusting = served
    seen: list[int] = []
    card = library.pull(f"{url}/tiny.json", sha256(source / "tiny.json"), state, context=trusting, progress=seen.append)
    assert card.checkpoint == "tiny-3"
    assert sum(seen) == sum((source / name).stat().st_size for name in ("tiny.json", "tiny.onnx"))
    with pytest.raises(AnyecgError, match="certificate"):
        library.pull(f"{url}/tiny.json", sha256(source / "tiny.json"), state)
    with pytest.raises(AnyecgError, match="not https"):
        library.pull(f"{url}/moved.onnx", "0" * 64, state, context=trusting)
    with pytest.raises(AnyecgError, match="404"):
        library.pull(f"{url}/none.onnx", "0" * 64, state, context=trusting)


@pytest.mark.parametrize(
    ("requested", "provider", "int8", "chosen", "why"),
    [
        ("fp32", "cpu", "a", "fp32", "as requested"),
        ("int8", "cpu", "a", "int8", "as requested"),
        ("int8", "cuda", "a", "fp32", "runs on cuda"),
        ("int8", "cpu", None, "fp32", "no int8 form"),
        ("int8", "cpu", "b", "fp32", "checkpoint b, not a"),
        ("auto", "cpu", "a", "int8", "faster"),
        ("auto", "tensorrt", "a", "fp32", "runs on tensorrt"),
        ("auto", "cpu", None, "fp32", "no int8 form"),
        ("auto", "cpu", "b", "fp32", "checkpoint b"),
    ],
)
def test_precision_falls_back_with_a_reason(
    requested: str, provider: str, int8: str | None, chosen: str, why: str
) -> None:
    found = choose_precision(requested, provider=provider, checkpoint="a", int8_checkpoint=int8)
    assert found.name == chosen
    assert why in found.reason


def test_an_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(BadInputError, match="fp32, int8, auto"):
        choose_precision("int4", provider="cpu", checkpoint="a", int8_checkpoint=None)
