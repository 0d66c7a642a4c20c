"""`git log` of a repository -> a record a commit: its message and the files it touched."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from headwater.errors import StorageError, UsageError
from headwater.records import Draft
from headwater.sources import Fault
from headwater.sources.exports import Item, attributes, place

_FORMAT = "%x00".join(("", "%H", "%P", "%an", "%ae", "%at", "%ct", "%D", "%B", ""))  # nothing in a commit holds a NUL
_FIELDS = 9  # those, and the names behind them
_MOST_FILES = 50
_QUIET = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false", "log.mailmap=false", "color.ui=false",
          "core.quotePath=false", "protocol.allow=never")  # fmt: skip


def is_repository(path: Path) -> bool:
    """Whether a folder is a git repository, or its bare kind."""
    return (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())


def read(path: Path) -> Iterator[Item]:
    """The commits that HEAD reaches, oldest first. What a repository configures to be run is not. Raises UsageError, and
    StorageError where git is not installed."""
    settings = [word for setting in _QUIET for word in ("-c", setting)]
    command = ["git", "--no-pager", *settings, "-C", str(path), "log", "--reverse", "--date-order", "--no-color",
               "--no-ext-diff", "--no-textconv", "--no-show-signature", "--name-only", f"--format={_FORMAT}", "HEAD",
               "--"]  # fmt: skip
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {
        **plain,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C.UTF-8",
    }
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
    except FileNotFoundError:
        raise StorageError("git is not installed, and reading a repository needs it") from None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        yield from _commits(child.stdout)
        said = child.stderr.read(2000).decode("utf-8", "replace").strip()
        if child.wait():
            raise UsageError(f"git cannot read {path}: {said.splitlines()[0] if said else 'it failed'}")
    finally:
        child.kill()
        child.stdout.close()
        child.stderr.close()
        child.wait()


def _commits(output: IO[bytes]) -> Iterator[Item]:
    held = output.read(1)[1:]  # what the first commit begins with
    fields: list[bytes] = []
    while data := output.read(256 << 10):
        *whole, held = (held + data).split(b"\0")
        fields += whole
        done = len(fields) - len(fields) % _FIELDS
        for start in range(0, done, _FIELDS):
            yield _commit(fields[start : start + _FIELDS])
        fields = fields[done:]
    if fields:
        yield _commit([*fields, held])


def _commit(fields: Sequence[bytes]) -> Item:
    texts = [field.decode("utf-8", "replace") for field in fields]
    if len(texts) != _FIELDS or not texts[5].isdigit():
        return Item("", Fault(0, "a commit that git did not tell as asked", "\n".join(texts)[:2000]))
    hash, parents, author, address, _, committed, refs, message, names = texts
    files = [name for name in names.split("\n") if name]
    time_ms = int(committed) * 1000
    listed = "\n".join(files[:_MOST_FILES])
    more = f"\nand {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
    value = message.strip("\n ") + (f"\n\n{listed}{more}" if files else "")
    tags = re.findall(r"tag: ([^,]+)", refs)
    known = attributes(
        author=author, email=address, files=len(files), merge=len(parents.split()) > 1 or None, tags=tags,
    )  # fmt: skip
    return Item("", Draft(value, hash, time_ms, known, position=place(time_ms, hash)))
