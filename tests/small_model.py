"""The small chat model of the extra `local`, for tests that run it."""

from __future__ import annotations

import importlib.util

import pytest

from headwater.errors import ConfigError
from headwater.llm.local import weights


def missing() -> str:
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed (the extra `local`)"
    try:
        weights("smollm2")
    except ConfigError as error:
        return str(error)
    return ""


real = pytest.mark.skipif(bool(missing()), reason=missing() or "there")
