"""A real page process and a real headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (make system)")


@contextlib.contextmanager
def page_process(state: Path, *arguments: str) -> Iterator[str]:
    """`anyecg web` on a free port; yields its address."""
    log = state / "web.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "web", "--state", str(state), "--port", "0", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline_s = time.monotonic() + 120
        while (found := re.search(r"url=(https?://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, "the page did not start"
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        try:
            assert process.wait(60) in (0, -15), log.read_text()
        finally:
            process.kill()


class Browser:
    """One Chromium with one tab."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 860) -> None:
        assert CHROMIUM is not None
        flags = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
            *("--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors"),
            *("--disable-dev-shm-usage", "--remote-debugging-port=0", "--force-color-profile=srgb"),
            *(f"--user-data-dir={folder}", f"--window-size={width},{height}", "about:blank"),
        ]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([CHROMIUM, *flags], stdout=log, stderr=log)
        port_file = folder / "DevToolsActivePort"
        wait(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1, 120, "chromium")
        port = port_file.read_text().splitlines()[0]
        tabs: list[str] = []

        def has_tab() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
                tabs[:] = [t["webSocketDebuggerUrl"] for t in json.load(answer) if t["type"] == "page"]
            return bool(tabs)

        wait(has_tab, 120, "a tab")
        self._socket = connect(tabs[0], max_size=2**27, proxy=None, ping_interval=None, open_timeout=120)
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.bytes = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=180))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Network.loadingFinished":
            self.bytes += params["encodedDataLength"]
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def size(self, width: int, height: int, *, scale: float = 1, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def eval(self, script: str) -> Any:
        """Return the value of a script (awaited)."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, timeout_s: float = 60) -> Any:
        """Wait until a script is true; return its value."""
        deadline_s = time.monotonic() + timeout_s
        wrapped = f"(() => {{ try {{ const v = {script}; return v instanceof Node || v }} catch {{ return null }} }})()"
        while not (value := self.eval(wrapped)):
            assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {script}; errors: {self.errors}"
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        self.until(f"(e => e !== null && (e.click(), true))(document.querySelector({json.dumps(selector)}))")

    def key(self, key: str) -> None:
        """Press a key, as a person would."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else None)
        extra = {} if text is None else {"text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **extra)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        with contextlib.suppress(Exception):
            self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait(is_true: Any, timeout_s: float, what: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)
