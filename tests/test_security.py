"""What SECURITY.md promises of the code and of a running gateway; each rule is first shown to catch what breaks it."""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from test_broker_setup import running, setup_for

from edge.config import load
from edge.control import request
from edge.errors import AnyecgError, BadInputError
from edge.store import marks, tables
from edge.store.database import StateLock, open_writable
from tests.gateway_kit import Daemon, wait_for
from tests.mosquitto_kit import mosquitto, needs_mosquitto
from tests.web_kit import page_process

ROOT = Path(__file__).resolve().parents[1]
SECRET = "c0rrect-horse-battery-staple"

# -- the code ------------------------------------------------------------------------------------------------------

UNPICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
RUNS_SQL = {"execute", "exec_driver_sql", "executemany", "executescript"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    paths = [path for room in ("edge", "broker", "export") for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 150
    for path in paths:
        yield path, ast.parse(path.read_text(), str(path))


def unpickling(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what could run code hidden in data: unpicklers, eval and exec, a shell."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in named if name.split(".")[0] in UNPICKLES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if name in ("eval", "exec", "os.system", "os.popen", "__import__") or name.endswith(".read_pickle"):
            yield node.lineno, name
        if given.get("allow_pickle") == "True" or given.get("shell") == "True":
            yield node.lineno, f"{name} with {given}"
        if name == "torch.load" and given.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only"
        if name == "yaml.load":
            yield node.lineno, name


def composed_sql(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield statements put together from text; PRAGMA takes no parameters and gets only numbers and own constants."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        first = node.args[0]
        if name not in {*RUNS_SQL, "text"} or (name == "text" and isinstance(node.func, ast.Attribute)):
            continue
        composed = isinstance(first, ast.JoinedStr | ast.BinOp) or (
            isinstance(first, ast.Call) and ast.unparse(first.func).endswith((".format", ".join", "str"))
        )
        if composed and not ast.unparse(first).lstrip("f").startswith(("'PRAGMA ", '"PRAGMA ')):
            yield node.lineno, ast.unparse(first)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (unpickling, "import pickle"),
        (unpickling, "from joblib import load"),
        (unpickling, "import numpy as np\nnp.load(p, allow_pickle=True)"),
        (unpickling, "torch.load(p)"),
        (unpickling, "eval(text)"),
        (unpickling, "subprocess.run(line, shell=True)"),
        (composed_sql, "conn.execute(f'SELECT * FROM wearer WHERE id = {name}')"),
        (composed_sql, "conn.exec_driver_sql('DELETE FROM x WHERE id = ' + name)"),
        (composed_sql, "conn.execute(text('SELECT %s' % name))"),
        (composed_sql, "conn.execute('SELECT {}'.format(name))"),
    ],
)
def test_each_rule_catches_what_breaks_it(rule: Callable[[ast.AST], Iterator[object]], bad: str) -> None:
    assert list(rule(ast.parse(bad)))


@pytest.mark.parametrize("rule", [unpickling, composed_sql])
def test_no_code_breaks_the_rules(rule: Callable[[ast.AST], Iterator[tuple[int, str]]]) -> None:
    allowed = {("config_docs.py", "text"), ("paper.py", "text")}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path, tree in modules()
        for line, what in rule(tree)
        if (path.name, "text") not in allowed
    ]
    assert found == []


# -- stored text stays text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["'); DROP TABLE mark; --", '" OR 1=1 --', "\\'; PRAGMA writable_schema=1; --", "%_%"])
def test_stored_text_is_data_never_sql(tmp_path: Path, text: str) -> None:
    state = tmp_path / "state"
    with StateLock(state):
        engine = open_writable(state)
        try:
            with engine.begin() as conn:
                conn.execute(tables.wearer.insert().values(_wearer("anna")))
                request = {"kind": "symptom", "author": text[:60], "wearer": "anna", "at_ns": 10**18, "note": text}
                assert marks.perform(conn, request, 10**18)["note"] == text
            with engine.connect() as conn:
                assert conn.execute(select(tables.mark.c.note)).scalars().all() == [text]
                assert conn.execute(select(tables.wearer.c.id)).scalars().all() == ["anna"]
        finally:
            engine.dispose()


def _wearer(name: str) -> dict[str, object]:
    values: dict[str, object] = {"id": name}
    for column in tables.wearer.columns:
        if column.name not in values and not column.nullable and column.default is None:
            values[column.name] = "UTC" if column.name == "timezone" else 0
    return values


# -- the running gateway -------------------------------------------------------------------------------------------


def listening(pid: int) -> list[tuple[str, int]]:
    """Return (address, port) of every TCP socket a process listens on, and of every UDP socket it has bound."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(handle)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table, wanted in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == wanted and fields[9] in inodes:
                address, port = fields[1].split(":")
                words = struct.pack(
                    f"={len(address) // 8}I", *(int(address[i : i + 8], 16) for i in range(0, len(address), 8))
                )
                family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
                found.append((socket.inet_ntop(family, words), int(port, 16)))
    return found


def test_a_listening_socket_would_be_seen() -> None:
    with socket.socket() as one, socket.socket(socket.AF_INET6) as two:
        one.bind(("0.0.0.0", 0))
        one.listen()
        two.bind(("::1", 0))
        two.listen()
        found = listening(os.getpid())
        assert ("0.0.0.0", one.getsockname()[1]) in found
        assert ("::1", two.getsockname()[1]) in found


@needs_mosquitto
def test_a_running_gateway_listens_nowhere_keeps_its_folder_to_itself_and_its_password_secret(tmp_path: Path) -> None:
    """Over TLS, at a broker that `anyecg broker init` set up."""
    state = tmp_path / "state"
    with running(tmp_path / "broker", setup_for(gateway="test")) as broker:
        settings = broker.settings("gateway")
        secret = settings.password()
        assert secret is not None
        with Daemon(state, settings.url) as daemon:
            with (state / "config.toml").open("a") as config:
                config.write(f'username = "gateway"\npassword_file = "{settings.password_file}"\n')
                config.write(f'ca_file = "{settings.ca_file}"\n')
            daemon.start()
            daemon.wait_ready()
            assert daemon.process is not None
            pid = daemon.process.pid
            wait_for(lambda: is_connected(state), 60, "the broker")
            assert listening(pid) == []
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
            for path in state.rglob("*"):
                if path.name in ("config.toml", "daemon.log"):  # this test's own
                    continue
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            seen = {
                "argv": Path(f"/proc/{pid}/cmdline").read_bytes(),
                "environment": Path(f"/proc/{pid}/environ").read_bytes(),
                "status": repr(request(state, "status")).encode(),
            }
            assert daemon.stop() == 0
    files = {str(path): path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert len(files) >= 3
    for where, content in (seen | files).items():
        assert secret.encode() not in content, where


@needs_mosquitto
def test_a_broker_of_ours_listens_on_loopback_unless_told_otherwise(tmp_path: Path) -> None:
    setup = setup_for()
    with running(tmp_path / "closed", setup) as broker:
        ports = (setup.port, setup.tls_port, setup.certificate_port)
        assert sorted(listening(broker.process.pid)) == sorted(("127.0.0.1", port) for port in ports)
    setup = setup_for(listen="0.0.0.0")
    with running(tmp_path / "open", setup) as broker:
        found = set(listening(broker.process.pid))
        assert ("0.0.0.0", setup.tls_port) in found
        assert ("127.0.0.1", setup.port) in found  # never without TLS


def is_connected(state: Path) -> bool:
    """Whether both sides of the gateway stand at the broker, and it refused neither a subscription nor a topic."""
    broker = request(state, "status")["broker"]
    return bool(broker["source"]["state"] == "connected" and broker["publisher"]["link"] == "connected")


@needs_mosquitto
def test_a_refused_password_appears_in_no_log(tmp_path: Path) -> None:
    state = tmp_path / "state"
    password = tmp_path / "password"
    password.write_text(f"{SECRET}-wrong\n")
    password.chmod(0o600)
    with mosquitto(passwords={"gateway": SECRET}) as broker, Daemon(state, broker.url) as daemon:
        with (state / "config.toml").open("a") as config:
            config.write(f'username = "gateway"\npassword_file = "{password}"\n')
        daemon.start()
        daemon.wait_ready()
        wait_for(lambda: request(state, "status")["broker"]["source"]["state"] == "refused", 60, "the refusal")
        daemon.stop()
    log = (state / "daemon.log").read_text()
    assert "refused" in log
    assert SECRET not in log


def test_the_page_listens_on_loopback_only(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with StateLock(state):
        open_writable(state).dispose()
    with page_process(state) as url:
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        wait_for(lambda: on_port(port), 60, "the page to listen")
        assert on_port(port) == [("127.0.0.1", port)]


def on_port(port: int) -> list[tuple[str, int]]:
    """Return where anybody on this machine listens on a port."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            found += [bound for bound in (listening(int(path.name)) if path.name.isdigit() else []) if bound[1] == port]
    return found


def test_a_state_folder_open_to_others_is_closed_or_refused(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o755)
    with StateLock(ours):
        assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "letter.txt").write_text("mine")
    with pytest.raises(BadInputError, match="chmod 700"):
        StateLock(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    assert list(shared.iterdir()) == [shared / "letter.txt"]


@pytest.mark.parametrize(
    "line",
    [
        'url = "mqtt://anna:s3cret@broker"',
        'password = "s3cret"',
    ],
)
def test_a_password_in_the_configuration_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(f"[mqtt]\n{line}\n")
    with pytest.raises(BadInputError) as refused:
        load(tmp_path)
    assert "s3cret" not in str(refused.value)


# -- the language model's weights ----------------------------------------------------------------------------------


def test_the_language_model_is_checked_before_it_is_loaded(tmp_path: Path) -> None:
    from edge.assistant.model import find_model
    from edge.assistant.weights import verified

    shipped = find_model(None)
    assert verified(shipped) == shipped
    damaged = tmp_path / shipped.name
    content = bytearray(shipped.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(AnyecgError, match="sha256"):
        verified(damaged)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(AnyecgError, match="sha256"):
        verified(other, sha256="0" * 64)
    card = tmp_path / "other.json"
    card.write_text('{"sha256": "' + "1" * 64 + '"}')
    with pytest.raises(AnyecgError, match="sha256"):
        verified(other)
