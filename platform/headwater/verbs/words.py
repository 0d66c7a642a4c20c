"""The words of the verbs, for whoever asks an implementation of them: `help(hw.search)`, `hw.search?` in a notebook."""

from __future__ import annotations

import inspect
import re
from typing import Any

from headwater.verbs import Verbs

_OWN = re.compile(r"As \w*Verbs\.\w+(?:$|[.,;]\s*)")


def worded(verbs: Any) -> None:
    """Give each verb of an implementation, which may be a method of a part of it, the docstring of the protocol where it has
    none, or only `As Verbs.x` and what is particular to it; that comes behind."""
    for name, verb in inspect.getmembers(Verbs, inspect.isfunction):
        method = getattr(verbs, name, None)
        function = getattr(method, "__func__", method)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        own = inspect.cleandoc(function.__doc__ or "")
        if own and not _OWN.match(own):
            continue
        rest = _OWN.sub("", own)
        particular = f"\n\n{rest[0].upper()}{rest[1:]}" if rest else ""
        function.__doc__ = inspect.cleandoc(verb.__doc__ or "") + particular
