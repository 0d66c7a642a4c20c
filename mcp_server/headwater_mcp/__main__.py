"""`python -m headwater_mcp`: the MCP server on standard input and output, over a running daemon or one it starts.

Standard output carries the protocol and nothing else; whatever is printed goes to standard error. The server ends when its
standard input ends or its parent dies.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from headwater.errors import HeadwaterError
from headwater.verbs import Verbs

T = TypeVar("T")
_PARENT_CHECK_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the client goes; the exit code."""
    options = _options(argv)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the thread that waits for input would hold up a KeyboardInterrupt
    try:
        asyncio.run(
            serve(_daemon(options), allow_write=options.allow_write, redact=not options.show_secrets, roots=options.root)
        )
    except HeadwaterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def serve(verbs: Verbs, *, allow_write: bool = False, redact: bool = True, roots: Sequence[Path] = ()) -> None:
    """Serve `verbs` on standard input and output until the client goes, then close them."""
    from headwater_mcp.server import build

    server = build(verbs, allow_write=allow_write, redact=redact, roots=roots)
    waking = asyncio.create_task(_wake(verbs))
    watching = asyncio.create_task(_end_with_parent(os.getppid()))
    try:
        await server.run_stdio_async()
    finally:
        for task in (waking, watching):
            task.cancel()
        await asyncio.gather(waking, watching, return_exceptions=True)
        await verbs.aclose()


def _daemon(options: argparse.Namespace) -> Verbs:
    """Verbs of the daemon the options name; nothing is started or connected before the first call."""
    from headwater.config import load
    from headwater_mcp.connect import connecting

    settings = load(options.config, {"data_dir": options.data_dir}).settings
    key = settings.server.api_key

    async def connect() -> Verbs:
        from headwater.client import Client
        from headwater.launch import find_or_start

        if options.url:
            return Client(options.url, key.get_secret_value() if key else None)
        config = Path(options.config) if options.config else None
        runtime = await _in_thread(lambda: find_or_start(settings, config=config))
        return Client(runtime.url, runtime.token)

    return connecting(connect)


async def _in_thread(function: Callable[[], T]) -> T:
    """What `function` returns. Its thread is a daemon: unlike an executor's it does not hold up the end of the process."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        done.set_running_or_notify_cancel()  # from here on a waiter who goes away cannot make the result impossible to set
        try:
            done.set_result(function())
        except BaseException as error:  # handed to who waits, whatever it is
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(done)


async def _wake(verbs: Verbs) -> None:
    """Have the daemon started while the client still introduces itself; a failure is told to the first call instead."""
    with contextlib.suppress(HeadwaterError):
        await verbs.status()


async def _end_with_parent(parent: int) -> None:
    """End the process when its parent has died: standard input may stay open in another child of it. The thread that
    waits for input cannot be interrupted, hence the hard exit; nothing here needs saving."""
    while os.getppid() == parent:  # noqa: ASYNC110 - another process's end sets no event
        await asyncio.sleep(_PARENT_CHECK_S)
    os._exit(0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("headwater-mcp", description="Headwater's MCP server on standard input and output.")
    parser.add_argument("--config", help="settings file (TOML)")
    parser.add_argument("--data-dir", help="data directory whose daemon is found or started")
    parser.add_argument("--url", help="a running daemon; none is started then")
    parser.add_argument("--allow-write", action="store_true", help="also serve the tools that store records")
    roots = "a folder whose files may be loaded, with --allow-write; may be given again"
    parser.add_argument("--root", action="append", type=Path, default=[], metavar="DIR", help=roots)
    parser.add_argument("--show-secrets", action="store_true", help="do not take secrets out of what records say")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
