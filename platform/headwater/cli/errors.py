"""How a command ends: an error is one clear line on stderr and an exit code, never a traceback (unless --debug)."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from headwater.errors import HeadwaterError, NotFoundError, UnreachableError, UsageError, WaitTimeout

FAILED, USAGE, MISSING, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 130


def exit_code(error: HeadwaterError) -> int:
    """2 for wrong usage, 3 for not found or not reachable, 4 for a timeout, else 1."""
    codes = {UsageError: USAGE, NotFoundError: MISSING, UnreachableError: MISSING, WaitTimeout: TIMED_OUT}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), FAILED)


def forget_stdout() -> None:
    """After a broken pipe: what is still buffered goes nowhere, so that the interpreter ends quietly."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is not a file, as under a test runner
        return


class Commands(TyperGroup):
    """The top group, which turns what a command raises into its end."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except HeadwaterError as error:
            if ctx.obj:
                raise
            from headwater.visible import visible

            typer.echo(f"headwater: {visible(str(error))}", err=True)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            if ctx.obj:
                raise
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            forget_stdout()
            raise typer.Exit(0) from None
        return result
