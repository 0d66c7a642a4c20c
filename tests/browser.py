"""A headless Chromium, driven over its own protocol: enough to open a page, run script in it and wait."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage",
    "--no-first-run", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip


class Browser:
    """One page of a browser."""

    def __init__(self, channel: ClientConnection) -> None:
        self._channel, self._calls = channel, 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a call of the protocol gives; events meanwhile are passed over."""
        self._calls += 1
        self._channel.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:
            reply: dict[str, Any] = json.loads(self._channel.recv(timeout=240))
            if reply.get("id") == self._calls:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; what it throws fails."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, *, timeout_s: float = 240.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} was never true: {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({url!r}) && document.readyState == 'complete'")


@contextlib.contextmanager
def browser(directory: Path, *, timeout_s: float = 240.0) -> Iterator[Browser]:
    """A browser with a profile of its own in `directory`."""
    assert CHROMIUM is not None
    place, end = directory / "DevToolsActivePort", time.monotonic() + timeout_s
    process = subprocess.Popen(
        [CHROMIUM, f"--user-data-dir={directory}", *_FLAGS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (place.exists() and "\n" in place.read_text()):
            assert process.poll() is None, "the browser has ended"
            assert time.monotonic() < end, "the browser does not start"
            time.sleep(0.05)
        port = place.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=240) as reply:
            page = next(one for one in json.load(reply) if one["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=240, ping_interval=None) as channel:
            yield Browser(channel)
    finally:
        process.terminate()
        process.wait(240)
