"""What is kept of a call that an agent made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headwater.records.tabular import Shown


@dataclass(frozen=True, slots=True)
class ToolCall(Shown):
    """One call: its number, who made it, of which tool. `arguments` is the SHA-256 of the arguments as canonical JSON, so that
    they can be proved and not read; `size` the bytes of the reply, `seconds` what it took, `failed` whether it was an
    error."""

    n: int
    at: datetime
    who: str
    tool: str
    arguments: str
    size: int
    seconds: float
    failed: bool
