"""The one scale of severities: six levels, and the spellings that mean them."""

from __future__ import annotations

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")  # least severe first

_SPELLINGS = {
    "trace": ("trace", "verbose", "finest", "finer"),
    "debug": ("debug", "fine", "dbg"),
    "info": ("info", "information", "informational", "notice", "note", "log"),
    "warn": ("warn", "warning"),
    "error": ("error", "err", "severe", "failure"),
    "fatal": ("fatal", "alert", "crit", "critical", "emerg", "emergency", "panic"),
}
WRITTEN = {spelling: level for level, spellings in _SPELLINGS.items() for spelling in spellings}  # as headers spell them
_ABBREVIATED = {"inf": "info", "wrn": "warn"}
_ELSEWHERE = {  # in fields of logs that are not in English; headers of lines are not read by them
    "debug": ("depuración", "depuracion", "depuração"),
    "info": ("información", "informacion", "informação", "informazione"),
    "warn": ("aviso", "advertencia", "advertência", "warnung", "avertissement", "avviso"),
    "error": ("erreur", "fehler", "erro", "errore", "fout"),
    "fatal": ("crítico", "critico", "critique", "kritisch"),
}
_MEANT = WRITTEN | _ABBREVIATED | {word: level for level, words in _ELSEWHERE.items() for word in words}


def canonical_level(name: str) -> str:
    """The name in LEVELS for a level as logs write it (`WARNING` -> `warn`); lower case where it is unknown."""
    name = name.strip().lower()
    return _MEANT.get(name, name)


def is_bad(level: str | None) -> bool:
    """Whether a level as logs write it is warn or worse; one that is unknown is not."""
    return level is not None and canonical_level(level) in LEVELS[LEVELS.index("warn") :]
