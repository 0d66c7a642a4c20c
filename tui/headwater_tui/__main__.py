"""`python -m headwater_tui`: the terminal UI over a running daemon, or one it starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from headwater.client import Client
from headwater.config import Settings, load
from headwater.errors import HeadwaterError
from headwater.launch import find_or_start
from headwater_tui.app import HeadwaterApp
from headwater_tui.kept import Kept


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the person quits; the exit code."""
    options = _options(argv)
    try:
        settings = load(options.config, {"data_dir": options.data_dir}).settings
        url, token = _daemon(settings, options)
        app = HeadwaterApp(
            Client(url, token), Kept.load(_kept_in()), theme=options.theme or settings.tui.theme, keys=settings.tui.keys
        )
    except HeadwaterError as error:
        print(error, file=sys.stderr)
        return 1
    app.run()
    return app.return_code or 0


def _daemon(settings: Settings, options: argparse.Namespace) -> tuple[str, str | None]:
    key = settings.server.api_key
    if options.url:
        return options.url, key.get_secret_value() if key else None
    runtime = find_or_start(settings, config=Path(options.config) if options.config else None)
    return runtime.url, runtime.token


def _kept_in() -> Path:
    return platformdirs.user_state_path("headwater") / "tui.json"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("headwater-tui", description="Headwater's terminal UI.")
    parser.add_argument("--config", help="settings file (TOML)")
    parser.add_argument("--data-dir", help="data directory whose daemon is found or started")
    parser.add_argument("--url", help="a running daemon; none is started then")
    parser.add_argument("--theme", help="a theme of Textual, such as textual-light or ansi-dark")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
