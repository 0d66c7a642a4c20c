"""What the terminal UI keeps between runs, in one JSON file of its user: queries asked, searches saved, records marked."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headwater.errors import StorageError

_MOST = {"history": 500, "marks": 10_000, "searches": 500}


@dataclass(slots=True)
class Kept:
    """`path` None keeps nothing on the disk. A file that cannot be read is set aside, not written over."""

    path: Path | None = None
    history: list[str] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path | None) -> Kept:
        """What the file has; nothing where there is none."""
        if path is None:
            return cls()
        try:
            told: Any = json.loads(path.read_text("utf-8"))
            lists = {name: [str(x) for x in told.get(name, ())] for name in _MOST}
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, AttributeError, TypeError):
            with contextlib.suppress(OSError):
                path.replace(path.with_suffix(".damaged"))
            return cls(path)
        return cls(path, **lists)

    def asked(self, q: str) -> None:
        """A query was asked; the newest stands last."""
        if q:
            self._add(self.history, q)
            self._save()

    def save_search(self, q: str) -> bool:
        """Save a search, or forget it where it is saved; whether it is now."""
        return self._toggle(self.searches, q)

    def mark(self, address: str) -> bool:
        """Mark a record, or unmark it; whether it is marked now."""
        return self._toggle(self.marks, address)

    def copied(self, text: str) -> Path | None:
        """Keep what was copied last, readable by this user alone, and say where; nowhere when nothing is kept."""
        if self.path is None:
            return None
        path = self.path.with_name("copied.txt")
        self._replace(path, text)
        return path

    def _toggle(self, held: list[str], what: str) -> bool:
        there = what in held
        if there:
            held.remove(what)
        else:
            self._add(held, what)
        self._save()
        return not there

    def _add(self, held: list[str], what: str) -> None:
        if what in held:
            held.remove(what)
        held.append(what)

    def _save(self) -> None:
        for name, most in _MOST.items():
            del getattr(self, name)[:-most]
        if self.path is None:
            return
        kept = {name: getattr(self, name) for name in _MOST}
        self._replace(self.path, json.dumps(kept, ensure_ascii=False, indent=1))

    def _replace(self, path: Path, text: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
                file.write(text)
            os.replace(name, path)
        except OSError as error:
            raise StorageError(f"cannot keep this in {path}: {error.strerror}") from error
