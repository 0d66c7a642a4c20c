"""What labels a task has, read from any form that people write them in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from headwater.errors import UsageError
from headwater.records.labels import Label, Method

MOST_LABELS = 1000
MOST_EXAMPLES = 20_000
LABEL_CHARS = 200
METHODS: tuple[Method, ...] = ("auto", "zero-shot", "examples", "neighbours", "llm", "cascade")


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be told of a text. `margin`: how far the best label must be before the second, or a model is asked (cascade);
    `min_confidence`: below it a text has no label; `about` tells a model what the labels are for."""

    labels: tuple[Label, ...]
    method: Method = "auto"
    margin: float = 0.2
    min_confidence: float = 0.0
    about: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def has_examples(self) -> bool:
        return any(label.examples for label in self.labels)

    def digest(self) -> str:
        """The same for tasks that decide alike: what decisions are kept by. The threshold is applied afterwards."""
        plain = [self.labels, self.method, self.margin, self.about]
        return hashlib.blake2b(orjson.dumps(plain), digest_size=16).hexdigest()


def task(
    labels: Any,
    examples: Any = None,
    *,
    method: str = "auto",
    margin: float = 0.2,
    min_confidence: float = 0.0,
    about: str = "",
) -> Task:
    """A task from loose values (JSON, YAML, flags). `labels`: names, `{name: description}`, `{name: [examples]}` or objects
    with name, description and examples; `examples`: `{label: [texts]}` or a list of `{text, label}`. UsageError says what is
    wrong."""
    found = [*_labels(labels)]
    more = _examples(examples)
    known = {label.name for label in found}
    if not found:
        found = [Label(name) for name in more]
    elif unknown := [name for name in more if name not in known]:
        raise UsageError(f"an example has the label {unknown[0]!r}, which is none of the labels")
    chosen = tuple(replace(label, examples=(*label.examples, *more.get(label.name, ()))) for label in found)
    names = [label.name for label in chosen]
    if len(names) < 2:
        raise UsageError("say at least two labels to choose from")
    if again := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the label {again[0]!r} is there twice")
    if len(names) > MOST_LABELS or sum(len(label.examples) for label in chosen) > MOST_EXAMPLES:
        raise UsageError(f"at most {MOST_LABELS:,} labels and {MOST_EXAMPLES:,} examples")
    for name in names:
        if not name.strip() or len(name) > LABEL_CHARS:
            raise UsageError(f"a label has a name of at most {LABEL_CHARS} characters, not {name[:40]!r}")
    if method not in METHODS:
        raise UsageError(f"method is one of {', '.join(METHODS)}, not {method!r}")
    if not 0 <= margin <= 1 or not 0 <= min_confidence <= 1:
        raise UsageError("margin and min_confidence are between 0 and 1")
    made = Task(chosen, method, margin, min_confidence, about)
    if method in ("examples", "neighbours") and not made.has_examples:
        raise UsageError(f"method {method} needs examples; zero-shot needs none")
    return made


def _labels(given: Any) -> list[Label]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [_label(str(name), about) for name, about in given.items()]
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return [_one(entry) for entry in given]
    raise UsageError("labels are a list of names, or an object of names and descriptions")


def _one(entry: Any) -> Label:
    if isinstance(entry, Label):
        return entry
    if isinstance(entry, Mapping):
        if "name" not in entry or (unknown := sorted(map(str, entry.keys() - {"name", "description", "examples"}))):
            raise UsageError(f"a label has name, description and examples{f', not {unknown[0]!r}' if 'name' in entry else ''}")
        return Label(str(entry["name"]), str(entry.get("description") or ""), _texts(entry.get("examples"), str(entry["name"])))
    if isinstance(entry, str | int | float | bool):
        return Label(_plain(entry))
    raise UsageError(f"a label is a name or an object with 'name', not {type(entry).__name__}")


def _plain(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _label(name: str, about: Any) -> Label:
    if isinstance(about, Mapping):
        return _one({**about, "name": name})
    if about is None or isinstance(about, str):
        return Label(name, about or "")
    return Label(name, "", _texts(about, name))


def _texts(given: Any, name: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(text, str) for text in given):
        raise UsageError(f"the examples of {name!r} must be a list of texts")
    return tuple(given)


def _examples(given: Any) -> dict[str, tuple[str, ...]]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): _texts(texts, str(name)) for name, texts in given.items()}
    found: dict[str, tuple[str, ...]] = {}
    for entry in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        pair = (entry.get("text"), entry.get("label")) if isinstance(entry, Mapping) else entry
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise UsageError("an example is an object with 'text' and 'label'")
        found[pair[1]] = (*found.get(pair[1], ()), pair[0])
    return found
