"""What may be asked for, learnt from the records that were seen: attributes and their values, for completion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headwater.query import KNOWN_FIELDS

_MODES = ("keyword", "semantic", "hybrid")
_AGES = ("5m", "15m", "1h", "2h", "1d", "7d")
_LEVELS = ("error", "warn", "info", "fatal", "debug")
_MOST_FIELDS, _MOST_VALUES, _MOST_CHARS = 200, 50, 60


@dataclass(slots=True)
class Vocabulary:
    """Field names with values that were seen, both bounded; the newest value stands first."""

    seen: dict[str, list[str]] = field(default_factory=dict)
    topics: tuple[str, ...] = ()

    def learn(self, attributes: Iterable[Mapping[str, Any]]) -> None:
        """Take in what records have."""
        for one in attributes:
            for name, value in one.items():
                values = self.seen.get(name)
                if values is None:
                    if len(self.seen) >= _MOST_FIELDS:
                        continue
                    values = self.seen[name] = []
                text = str(value)
                if text and len(text) <= _MOST_CHARS and text not in values and not isinstance(value, dict | list):
                    values.insert(0, text)
                    del values[_MOST_VALUES:]

    def words(self) -> Iterator[str]:
        """Every filter that can be begun or whole: `name:` before `name:value`."""
        yield from (f"{name}:" for name in dict.fromkeys((*KNOWN_FIELDS, *sorted(self.seen))))
        yield from (f"level:{level}" for level in _LEVELS)
        yield from (f"topic:{name}" for name in self.topics)
        yield from (f"mode:{mode}" for mode in _MODES)
        yield from (f"{name}:{age}" for name in ("since", "until") for age in _AGES)
        for name, values in sorted(self.seen.items()):
            yield from (f"{name}:{_quoted(value)}" for value in values)


def _quoted(value: str) -> str:
    return value if value.isalnum() or not set(value) & set(' ",()') else '"' + value.replace('"', '\\"') + '"'
