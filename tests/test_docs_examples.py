"""The programs in docs/examples run as they stand: to their end, or with real requests, or in a browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

import headwater
from brokers import free_port
from browser import CHROMIUM, browser
from headwater.webhooks.signing import secret_of, signed
from serving import serving, settings_in

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
SERVERS = ("chat_page", "rag_app", "webhook_receiver")  # each has a test of its own
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in SERVERS)
MOST_S = 240.0


def _environment(directory: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "HEADWATER_URL"}
    return kept | {"HEADWATER_DATA_DIR": str(directory / "default"), "PYTHONUNBUFFERED": "1", **more}


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_runs_to_its_end_without_a_network_or_a_key(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=_environment(tmp_path), capture_output=True, text=True, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_example_is_in_the_list_and_no_other() -> None:
    named = set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}


@contextlib.contextmanager
def _app(name: str, directory: Path, **environment: str) -> Iterator[str]:
    """The URL of an example's app, served as its first line says."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{name}:app", "--app-dir", str(EXAMPLES), "--port", str(port)]
    process = subprocess.Popen(command, cwd=directory, env=_environment(directory, **environment))
    try:
        end = time.monotonic() + MOST_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(240)


@pytest.mark.slow
def test_the_rag_app_answers_from_its_documents_and_from_no_former_one(tmp_path: Path) -> None:
    with _app("rag_app", tmp_path) as url, httpx.Client(base_url=url, timeout=MOST_S) as app:
        plain = {"Content-Type": "text/plain"}
        app.put("/documents/pool.md", content="The pool of payments holds 5 connections.", headers=plain).raise_for_status()
        app.put("/documents/pool.md", content="The pool of payments holds 20 connections.", headers=plain).raise_for_status()
        app.put("/documents/lunch.md", content="Lunch is at noon on the roof.", headers=plain).raise_for_status()

        question = {"question": "How many connections does the pool of payments hold?"}
        said = app.post("/ask", json=question).json()
        assert "20 connections" in said["answer"]
        assert "5 connections" not in said["answer"]
        assert {(source["document"], source["verified"]) for source in said["sources"]} == {("pool.md", True)}
        assert "20 connections" in app.post("/ask/stream", json=question).text
        assert app.post("/ask", json={"question": "Who won the chess tournament?"}).json()["abstained"]
        refused = app.post("/ask", json={"question": ""})
        assert refused.status_code == 422
        assert refused.json()["error"]


NOTES = [
    "Rolling back payments to v2.13 stopped the errors <img src=x onerror=\"document.title='taken'\">.",
    "Lunch is at noon.",
]
QUESTION = "What stopped the errors of payments?"


def _events(text: str) -> list[tuple[str, object]]:
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(name, json.loads(data)) for name, data in found]


@pytest.mark.slow
def test_the_chat_page_gets_the_daemons_events_through_its_server_and_its_key_stays_there(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path / "served", api_key=SecretStr("a key of the daemon"))) as daemon:
        with headwater.connect(daemon, "a key of the daemon") as hw:
            hw.append("notes", NOTES, wait="searchable", timeout_s=240)
        with (
            _app("chat_page", tmp_path, HEADWATER_URL=daemon, HEADWATER_SERVER_API_KEY="a key of the daemon") as url,
            httpx.Client(base_url=url, timeout=MOST_S) as page,
        ):
            shown = page.get("/")
            assert "a key" not in shown.text
            assert not re.findall(r"(?:src|href)\s*=", shown.text)  # nothing from elsewhere
            events = _events(page.post("/v1/ask", json={"question": QUESTION, "stream": True}).text)
            assert events[0][0] == "retrieval"
            assert events[-1][0] == "done"
            assert {"token", "citation"} <= {name for name, _ in events}
            assert page.get("/v1/topics").status_code == 404


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_chat_page_shows_an_answer_in_a_browser_as_text(tmp_path: Path) -> None:
    with serving(settings_in(tmp_path / "served")) as daemon:
        with headwater.connect(daemon) as hw:
            hw.append("notes", NOTES, wait="searchable", timeout_s=240)
        with _app("chat_page", tmp_path, HEADWATER_URL=daemon) as url, browser(tmp_path / "profile") as page:
            page.open(url)
            page.evaluate(f"document.getElementById('question').value = {QUESTION!r}")
            page.evaluate("document.getElementById('form').requestSubmit()")
            page.wait("document.querySelector('[data-done]')?.dataset.done")
            assert "Rolling back payments" in page.evaluate("document.querySelector('.answer').textContent")
            assert page.evaluate("document.querySelector('.address').textContent") == "notes/0/0"
            assert "onerror" in page.evaluate("document.querySelector('.cited').textContent")
            assert page.evaluate("document.images.length") == 0
            assert page.evaluate("document.title") == "Ask the records"
            assert page.evaluate("document.getElementById('stop').disabled")


@contextlib.contextmanager
def _receiver(directory: Path, secret: str) -> Iterator[tuple[str, Path]]:
    """The URL of the receiver, and the file of what it printed."""
    out = directory / "received.txt"
    with out.open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "webhook_receiver.py"), "0"],
            stdout=stdout, stderr=subprocess.DEVNULL, env=_environment(directory, WEBHOOK_SECRET=secret),
        )  # fmt: skip
        try:
            end = time.monotonic() + MOST_S
            while (found := re.search(r"listening on (\S+)\n", out.read_text())) is None:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            yield found[1], out
        finally:
            process.terminate()
            process.wait(240)


def test_the_receiver_of_webhooks_takes_what_is_signed_once_and_nothing_else(tmp_path: Path) -> None:
    key, other = b"k" * 32, b"o" * 32
    body, now = b'{"type": "test"}', int(time.time())
    with _receiver(tmp_path, secret_of(key)) as (url, out):

        def sent(headers: dict[str, str], content: bytes = body) -> int:
            return httpx.post(url, content=content, headers=headers).status_code

        assert sent(signed([key], "one", now, body)) == 204
        assert sent(signed([key], "one", now, body)) == 204  # again: taken, and acted on once
        assert sent(signed([other, key], "two", now, body)) == 204  # while a secret is replaced
        assert sent(signed([other], "three", now, body)) == 401
        assert sent(signed([key], "four", now - 600, body)) == 401
        assert sent(signed([key], "five", now, body), b'{"type": "tesT"}') == 401
        assert sent({}) == 401
        assert out.read_text().count('"type"') == 2


def test_a_daemon_reaches_the_receiver_of_webhooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secret_of(b"k" * 32)
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    with _receiver(tmp_path, secret) as (url, out), headwater.open(tmp_path / "data", embedding={"model": "hash"}) as hw:
        hw.add_webhook(url, name="mine", alerts=["*"], allow_private=True)
        assert hw.test_webhook("mine").status == 204
        assert '"test"' in out.read_text()
