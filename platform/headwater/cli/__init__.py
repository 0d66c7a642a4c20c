"""The command line: `headwater COMMAND`. Each command is one call of a verb; data goes to stdout, narration to stderr.

Nothing heavy is imported by the modules of the commands: what a command needs it imports when it runs.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point `headwater`."""
    try:
        from headwater.cli.app import app
        from headwater.cli.errors import INTERRUPTED, forget_stdout
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        app(prog_name="headwater")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        forget_stdout()
        os._exit(0)
