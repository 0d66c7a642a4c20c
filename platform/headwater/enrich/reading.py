"""Pipelines as they are written: YAML with the line of everything in it, so that an error can say where it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from headwater.errors import UsageError

_MOST_CHARS = 2_000_000
_DEEPEST = 40
_MOST_VALUES = 200_000
Path = tuple[str | int, ...]


class Source:
    """Where things stand: `lines` has the 1-based line of every value by its path; empty for what was not read from text."""

    def __init__(self, lines: Mapping[Path, int] | None = None, name: str = "the pipeline") -> None:
        self._lines, self._name = lines or {}, name

    def line(self, path: Path) -> int | None:
        """The line of what stands at a path, or of the nearest thing around it; None for what was not read from text."""
        return next((self._lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._lines), None)

    def fail(self, path: Path, problem: str) -> NoReturn:
        """UsageError that says what is wrong, where, and in which line."""
        known, place = self.line(path), told(path)
        raise UsageError(f"{self._name}{f', line {known}' if known else ''}{f' ({place})' if place else ''}: {problem}")

    def unknown(self, path: Path, name: str, known: Iterable[str]) -> NoReturn:
        """UsageError for a name that is not known, with the nearest that is."""
        names = list(known)
        close = difflib.get_close_matches(name, names, 1, cutoff=0.5)
        self.fail(
            (*path, name), f"unknown {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}")
        )


def told(path: Path) -> str:
    """`steps[2].classify.labels`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(text: str, name: str = "the pipeline") -> tuple[Any, Source]:
    """What a YAML (or JSON) text says, and where. UsageError says in which line and column it is none."""
    import yaml

    if len(text) > _MOST_CHARS:
        raise UsageError(f"{name} has more than {_MOST_CHARS:,} characters")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Path, int] = {}
        if root is not None:
            _place(root, (), lines, 0)
        return (None if root is None else yaml.safe_load(text)), Source(lines, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UsageError(f"{name}{where}: this is not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply") from None
    except ValueError as error:  # of a value that only looks like a time or a number
        raise UsageError(f"{name}: {error}; put the value in quotation marks") from error


def _place(node: Any, path: Path, lines: dict[Path, int], depth: int) -> None:
    """Note the line of a node and of all in it. They are counted: few bytes of aliases can stand for millions of values."""
    if depth > _DEEPEST:
        raise UsageError("the pipeline is nested too deeply")
    if len(lines) > _MOST_VALUES:
        raise UsageError(f"the pipeline has more than {_MOST_VALUES:,} values, its aliases written out")
    if path in lines:
        raise UsageError(f"line {node.start_mark.line + 1}: {told(path)} is there twice")
    lines[path] = node.start_mark.line + 1
    if isinstance(node.value, list) and node.id == "mapping":
        for key, value in node.value:
            _place(value, (*path, str(key.value)), lines, depth + 1)
            lines[(*path, str(key.value))] = key.start_mark.line + 1
    elif isinstance(node.value, list):
        for n, value in enumerate(node.value):
            _place(value, (*path, n), lines, depth + 1)


def plain(value: Any) -> Any:
    """A value as JSON has it: dates as text, keys as text, a pydantic model as its JSON schema."""
    if (make := getattr(value, "model_json_schema", None)) is not None:
        return make()
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
