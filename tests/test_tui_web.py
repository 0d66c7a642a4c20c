"""The terminal UI in a browser: who may use it, and that headless Chromium shows it and types into it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from headwater.client import Client
from serving import eventually, serving, settings_in

pytest.importorskip("textual_serve", reason="needs textual-serve (extra `web`)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What `headwater tui --web` prints, over a daemon with two records."""
    with serving(settings_in(tmp_path / "data")) as url:
        asyncio.run(_fill(url))
        command = [sys.executable, "-c", "from headwater.cli import main; main()", "tui", "--web", "--port", "0", "--url", url]
        with _printing(command, r"(http://127\S+)", HOME=str(tmp_path)) as found:
            yield found


async def _fill(url: str) -> None:
    async with Client(url) as hw:
        await hw.append("payments", ["payments are slow", "the pool is exhausted"], wait="searchable", timeout_s=240)


@contextlib.contextmanager
def _printing(command: list[str], wanted: str, **environment: str) -> Iterator[str]:
    """What a program printed that matches, while the program runs."""
    seen: list[str] = []
    env = {**os.environ, **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: seen.extend(process.stdout or ()))
    reader.start()

    def found() -> re.Match[str] | None:
        assert process.poll() is None, "".join(seen)
        return re.search(wanted, "".join(seen))

    try:
        eventually(lambda: found() is not None)
        match = found()
        assert match is not None
        yield match[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(240)
        reader.join(240)
        process.stdout.close()


def test_a_page_is_for_who_knows_the_address_and_for_no_other_site(address: str) -> None:
    at, _, token = address.partition("/?token=")
    with httpx.Client() as browser:
        assert browser.get(at).status_code == 401
        assert browser.get(f"{at}/?token=wrong").status_code == 401
        assert browser.get(f"{at}/ws").status_code == 401
        assert browser.get(address, headers={"Host": f"evil.example:{at.rpartition(':')[2]}"}).status_code == 421
        assert browser.get(address, headers={"Origin": "http://evil.example"}).status_code == 403
        told = browser.get(address)
        assert (told.status_code, told.headers["Location"]) == (303, "/")
        cookie = told.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        page = browser.get(at)
        assert page.status_code == 200
        assert token not in page.text
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
        other = {"Origin": "http://127.0.0.1:9", "Upgrade": "websocket", "Connection": "Upgrade"}
        assert browser.get(f"{at}/ws", headers=other).status_code == 403


class Page:
    """One page of a browser, over its debugging protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), 240))
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def value(self, script: str) -> Any:
        return (await self.call("Runtime.evaluate", expression=script))["result"].get("value")

    async def shows(self, wanted: str) -> None:
        """Wait until the app has sent `wanted` to the page's terminal, control codes left out."""
        end = time.monotonic() + 240
        while time.monotonic() < end:
            seen = re.sub(r"\x1b\[[0-9;?<>]*[A-Za-z]", "", str(await self.value("window.received || ''")))
            if wanted in seen:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{wanted!r} not in {seen[-3000:]!r}")


# What the app sends comes as binary frames of a WebSocket, which the page's terminal draws on a canvas.
_LISTEN = """
window.received = "";
const Plain = window.WebSocket;
window.WebSocket = class extends Plain {
  constructor(...given) {
    super(...given);
    this.addEventListener("message", async (event) => {
      if (event.data instanceof Blob) window.received += await event.data.text();
      else if (event.data instanceof ArrayBuffer) window.received += new TextDecoder().decode(event.data);
    });
  }
};
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as Debian's package `chromium`")
def test_headless_chromium_shows_the_views_and_its_keys_reach_them(address: str, tmp_path: Path) -> None:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}", "about:blank"]

    async def main(devtools: str) -> None:
        async with httpx.AsyncClient() as asking:
            pages = (await asking.get(f"http://{devtools}/json/list")).json()
        target = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        async with websockets.connect(target, max_size=None, open_timeout=240, ping_interval=None) as socket:
            page = Page(socket)
            await page.call("Page.enable")
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=_LISTEN)
            await page.call("Page.navigate", url=address)
            await page.shows("payments")
            assert "token" not in await page.value("location.href")
            await page.value("document.querySelector('textarea').focus()")
            await page.call("Input.insertText", text="9")
            await page.shows("no problems")
            picture = base64.b64decode((await page.call("Page.captureScreenshot"))["data"])
            assert picture.startswith(b"\x89PNG")
            outside = "performance.getEntriesByType('resource').some((e) => !e.name.includes('127.0.0.1') && e.transferSize)"
            assert await page.value(outside) is False

    with _printing(command, r"ws://([^/\s]+)/devtools", HOME=str(tmp_path)) as devtools:
        asyncio.run(main(devtools))
