"""The page in a real browser: a real daemon hears a real record in real time, and a person watches, reviews, asks."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from gateway_kit import Daemon, Wearable, cut, wait_for
from mosquitto_kit import mosquitto, needs_mosquitto
from sqlalchemy import select
from store_kit import AF_IDS, berlin, build, reader, utc_ns
from web_kit import Browser, needs_chromium, page_process

from edge.sources.record import read_record
from edge.store import marks, queries, questions, tables
from edge.web.tokens import TokenFile

pytestmark = [needs_chromium, needs_mosquitto]

CHUNK_S = 0.25
CANVAS = "document.querySelector('canvas[aria-label=\"Live ECG\"]')"
NOTE_TOASTS = """window.toasts = [];
new MutationObserver(changes => changes.forEach(({addedNodes}) => addedNodes.forEach(
    added => window.toasts.push(added.textContent.toLowerCase())
))).observe(document.getElementById('toasts'), {childList: true})"""


@dataclass
class Scene:
    """Everything that runs."""

    browser: Browser
    url: str
    state: Path
    wearable: Wearable
    daemon: Daemon

    def marks(self) -> list[marks.Mark]:
        with reader(self.state).connect() as conn:
            return [
                marks.find(conn, n) for n in conn.execute(select(tables.mark.c.id).order_by(tables.mark.c.id)).scalars()
            ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, ecg_data: Path) -> Iterator[Scene]:
    """mitdb/200 from 9 min 40 s on: ectopy from the start, a run of VT at 50 s."""
    folder = tmp_path_factory.mktemp("scene")
    state = folder / "state"
    browser = Browser(folder / "browser")
    try:
        with mosquitto() as broker, Daemon(state, broker.url) as daemon:
            daemon.start()
            daemon.wait_ready()
            with page_process(state) as url:
                browser.open(url)
                browser.eval(NOTE_TOASTS)
                record = cut(read_record(ecg_data / "mitdb/200"), 240, 580)
                wearable = Wearable(broker.url, record, speed=1, chunk_s=CHUNK_S, start_ns=time.time_ns())
                wearable.start()
                yield Scene(browser, url, state, wearable, daemon)
                wearable.give_up()
    finally:
        browser.close()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of one wearer, no daemon."""
    return build(tmp_path_factory.mktemp("history"))


def test_the_trace_moves_smoothly_and_keeps_up(scene: Scene) -> None:
    page = scene.browser
    page.until("window.anyecgLive && window.anyecgLive().play > 0")
    page.eval("window.stays = true")
    time.sleep(6)  # the page measures how regularly pieces come
    picture = f"{CANVAS}.toDataURL().length + {CANVAS}.toDataURL().slice(-3000)"

    def is_smooth() -> bool:
        """Whether two seconds pass that nothing else on this machine disturbs."""
        one, began_s, first = page.eval("window.anyecgLive()"), time.monotonic(), page.eval(picture)
        behind = []
        for _ in range(10):
            time.sleep(0.2)
            sent_s = scene.wearable.sender.snapshot()["chunks"] * CHUNK_S
            behind.append(sent_s - page.eval("window.anyecgLive().play"))
        two, took_s = page.eval("window.anyecgLive()"), time.monotonic() - began_s
        has_moved = page.eval(picture) != first
        pace, rate = ((two[name] - one[name]) / took_s for name in ("play", "frames"))
        behind.sort()
        print(f"behind the strap: {behind}, {pace:.2f} s/s, {rate:.0f} frames/s")
        return has_moved and pace == pytest.approx(1.0, abs=0.5) and rate > 30 and behind[len(behind) // 2] <= 1.0

    wait_for(is_smooth, 40, "a smooth trace, at most 1 s behind the strap")
    page.until("+document.getElementById('hr').textContent > 50")
    page.until("window.anyecgLive().beats > 5")


def test_an_alert_appears_without_reload(scene: Scene) -> None:
    page = scene.browser
    page.until("window.toasts.length", 120)
    assert "ventricular" in page.eval("window.toasts[0]")
    page.until("document.querySelector('.news button')")
    assert page.eval("window.stays"), "the page was not loaded again"


def test_an_event_is_reviewed_corrected_and_taken_back(scene: Scene) -> None:
    page = scene.browser
    page.until("window.toasts.length", 120)
    page.key("r")
    page.until("document.querySelectorAll('.events button').length >= 1")
    page.key("n")
    page.until("document.querySelector('#verdict')?.textContent === 'not reviewed'")
    shown = page.eval("location.hash.split('/').pop()")
    page.key("c")
    page.until("document.querySelector('#verdict').textContent.includes('confirmed')")
    (mark,) = scene.marks()
    assert (mark.kind, mark.finding_id, mark.author) == ("confirm", shown, "page")
    page.until("document.querySelector('.events .verdict').textContent === '✓'")
    page.click(".audit button")
    page.until("document.querySelector('#verdict').textContent === 'not reviewed'")
    assert scene.marks()[0].undone_by == "page"

    page.until("window.anyecgReview().draw_ms > 0")
    press = "document.dispatchEvent(new KeyboardEvent('keydown', {key: ']'}))"
    page.until(f"({press}, window.anyecgReview().beat)")
    chosen = page.eval("window.anyecgReview().beat")
    wanted = "S" if chosen["type"] != "S" else "V"
    page.call("Input.dispatchKeyEvent", type="keyDown", key=wanted, text=wanted, modifiers=8)
    wait_for(lambda: len(scene.marks()) == 2, 60, "the corrected beat")
    beat = scene.marks()[1]
    assert (beat.kind, beat.start_sample, beat.value) == ("beat", chosen["sample"], {"type": wanted})
    with reader(scene.state).connect() as conn:
        assert beat.recording_id is not None
        recording = queries.find_recording(conn, beat.recording_id)
        found = marks.corrected_beats(conn, recording, chosen["sample"], chosen["sample"] + 1)
        assert "NSVFQ"[found["type"][0]] == wanted

    page.key("o")
    page.until("document.querySelector('dialog select')")
    page.eval("document.querySelector('dialog select').value = 'svt'")
    page.click("dialog .go")
    page.until("document.querySelector('#verdict').textContent === '+ added by a person'")
    assert (scene.marks()[2].kind, scene.marks()[2].value) == ("episode", {"rule": "svt"})
    page.click(".audit button")
    page.until("document.querySelector('#verdict').textContent.includes('undone')")
    page.eval(f"location.hash = '#review/anna/event/{shown}'")
    page.until("document.querySelector('#verdict').textContent === 'not reviewed'")

    page.key("m")
    page.until("document.querySelector('dialog textarea')")
    page.type("<b>looks</b> odd")
    page.click("dialog .go")
    page.until("document.querySelector('.audit').textContent.includes('<b>looks</b> odd')")
    page.key("s")
    page.until("document.querySelector('dialog textarea')")
    page.type("dizzy")
    page.click("dialog .go")
    wait_for(lambda: scene.marks()[-1].kind == "symptom", 60, "the symptom")
    assert scene.marks()[-1].note == "dizzy"


def test_a_question_is_answered_and_its_citation_opens_the_event(scene: Scene) -> None:
    page = scene.browser
    page.key("a")
    page.until("document.activeElement?.getAttribute('aria-label') === 'Question'")
    page.type("List all events of the last hour")
    page.key("Enter")
    page.until("document.querySelector('.qa .a')?.textContent.length > 20 && !document.querySelector('.stage')", 90)
    page.until("document.querySelector('.qa [data-event]')")
    cited = page.eval("document.querySelector('.qa [data-event]').getAttribute('data-event')")
    answer = page.eval("document.querySelector('.qa .a').textContent")
    with reader(scene.state).connect() as conn:
        (kept,) = questions.recent(conn, 10)
    assert (kept["question"], kept["answer"]["answer"]) == ("List all events of the last hour", answer)
    page.type("and the last one?")  # goes on from the answer before
    page.key("Enter")
    page.until("document.querySelectorAll('.qa').length === 2 && !document.querySelector('.stage')", 90)
    then = page.eval("document.querySelector('.qa .a').textContent")
    with reader(scene.state).connect() as conn:
        kept, first = questions.recent(conn, 10)
    assert (kept["answer"]["answer"], first["answer"]["answer"]) == (then, answer)
    assert " the last " in f" {then[0].lower()}{then[1:]}"
    cited = page.eval("document.querySelector('.qa [data-event]').getAttribute('data-event')")
    page.eval("location.hash = '#health'")
    page.until("!document.querySelector('.qa')")
    page.eval("location.hash = '#ask'")
    page.until(f"document.querySelector('.qa .a')?.textContent === {json.dumps(then)}")  # asked before
    page.click(".qa [data-event]")
    page.until(f"location.hash.endsWith('event/{cited}') && document.querySelector('#verdict')")
    assert page.eval("document.querySelector('.strip canvas').width") > 0


def test_the_page_says_when_the_gateway_stops(scene: Scene) -> None:
    page = scene.browser
    page.eval("location.hash = '#live'")
    page.until("window.anyecgLive().play > 0")
    assert scene.daemon.stop() == 0
    page.until("document.getElementById('link').textContent === 'gateway off'")
    page.until("document.getElementById('hr').textContent === '–'")
    outside = [url for url in page.requests if urlsplit(url).hostname != "127.0.0.1"]
    assert not [url for url in outside if not url.startswith("data:")], "no request leaves the host"
    assert page.errors == []


def test_weight_first_paint_and_panning_of_a_day(history: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "browser")
    try:
        with page_process(history) as url:
            browser.call("Network.setCacheDisabled", cacheDisabled=True)
            paints, rates = [], []
            for _ in range(3):  # as with panning, the best of some on a machine that may be busy
                browser.open("about:blank")
                browser.open(f"{url}#review/ann")
                browser.until("window.anyecgReview && window.anyecgReview().events > 0")
                paints.append(browser.until("performance.getEntriesByName('first-contentful-paint')[0]?.startTime"))
            resources = browser.eval("performance.getEntriesByType('resource').map(e => [e.name, e.transferSize])")
            whole = browser.eval("performance.getEntriesByType('navigation')[0].transferSize")
            weight = whole + sum(size for name, size in resources if "/static/" in name)
            start, end = (at // 10**6 for at in (utc_ns(berlin(28, 0)), utc_ns(berlin(29, 0))))
            browser.eval(f"window.anyecgReview().set({start}, {end})")
            browser.until(f"window.anyecgReview().from === {start} && window.anyecgReview().events >= 4")
            pan = f"""new Promise(done => {{
                const began = performance.now(), before = window.anyecgReview().frames;
                const step = () => {{
                    const t = performance.now() - began;
                    window.anyecgReview().set({start} - t * 5000, {end} - t * 5000);
                    if (t < 1500) requestAnimationFrame(step);
                    else done((window.anyecgReview().frames - before) / t * 1000);
                }};
                step();
            }})"""
            while len(rates) < 3 or (max(rates) < 30 and len(rates) < 10):
                rates.append(browser.eval(pan))
            print(f"page {weight} bytes, first paint {paints} ms, panning {rates} frames/s")
            assert weight < 300_000
            assert min(paints) < 1000
            assert max(rates) >= 30
            night_of_the_change(browser)
            at = utc_ns(berlin(28, 10, 5)) // 10**6
            browser.eval(f"window.anyecgReview().set({at}, {at + 8000})")  # from a day to a beat
            browser.until("window.anyecgReview().to - window.anyecgReview().from < 9000")
            browser.click("button[aria-pressed='false']")
            assert browser.errors == []
            for width in (390, 1280):
                browser.size(width, 844, phone=width < 500)
                time.sleep(0.3)
                fits = "(e => e.scrollWidth === e.clientWidth)(document.documentElement)"  # nothing sticks out sideways
                browser.until(f"window.innerWidth === {width} && {fits}")
    finally:
        browser.close()


def night_of_the_change(browser: Browser) -> None:
    """28 to 29 March 2026 in Berlin: from 20:00 to 8:00 are 11 hours; the night before had 12."""
    browser.eval(f"window.anyecgReview().set({utc_ns(berlin(29, 0)) // 10**6}, {utc_ns(berlin(29, 6)) // 10**6})")
    browser.key("y")
    night = [utc_ns(at) // 10**6 for at in (berlin(28, 20), berlin(29, 8))]
    shown = "[window.anyecgReview().from, window.anyecgReview().to]"
    browser.until(f"JSON.stringify({shown}) === '{json.dumps(night, separators=(',', ':'))}'")
    caption = "document.querySelector('.line small').textContent"
    browser.until(f"{caption}.includes('CET / CEST, the clocks change: 11 h')")
    browser.eval("[...document.querySelectorAll('button')].find(b => b.textContent === 'Compare').click()")
    before = [utc_ns(at) // 10**6 for at in (berlin(27, 20), berlin(28, 8))]
    other = "JSON.stringify(window.anyecgReview().other)"
    browser.until(f"{other} === '{json.dumps(before, separators=(',', ':'))}'")
    assert browser.eval(f"{shown}[1] - {shown}[0]") == 12 * 3_600_000, "both at the same scale"
    browser.until("document.querySelectorAll('.line small')[1].textContent.startsWith('Fri 27 Mar 20:00:00')")
    browser.eval("[...document.querySelectorAll('button')].find(b => b.textContent === 'Compare').click()")


def test_a_wrong_token_is_refused_and_a_viewer_only_sees(tmp_path: Path) -> None:
    state = build(tmp_path / "state")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-keyout", key, "-out", cert, "-days", "1", "-subj", "/CN=ecg"], check=True, capture_output=True
    )
    (state / "config.toml").write_text(f'[web]\ncert_file = "{cert}"\nkey_file = "{key}"\n')
    token = TokenFile(state).add("carer", "viewer", 1)
    browser = Browser(tmp_path / "browser")
    try:
        with page_process(state, "--host", "0.0.0.0") as address:
            url = address.replace("0.0.0.0", "127.0.0.1")
            assert url.startswith("https://")
            browser.open(f"{url}#review/ann/event/{AF_IDS[0]}")
            sign_in(browser, "carer.wrong")
            browser.until("document.querySelector('.err').textContent.includes('no valid token')")
            assert not browser.eval("document.querySelector('.review')")
            sign_in(browser, token)
            browser.until("document.querySelector('#verdict')?.textContent === 'not reviewed'")
            assert browser.eval("document.querySelector('[data-act=confirm]').disabled")
            post = {"method": "POST", "headers": {"content-type": "application/json"}, "body": '{"kind": "confirm"}'}
            assert browser.eval(f"fetch('/api/mark', {json.dumps(post)}).then(r => r.status)") == 403
            TokenFile(state).remove("carer")
            browser.eval("fetch('/api/people')")
            browser.key("h")
            browser.until("document.querySelector('.login')")
    finally:
        browser.close()


def sign_in(browser: Browser, token: str) -> None:
    browser.until("document.querySelector('.login input')")
    browser.eval("document.querySelector('.login input').value = ''")
    browser.eval("document.querySelector('.login input').focus()")
    browser.type(token)
    browser.click(".login .go")
