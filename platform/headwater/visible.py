"""Text from outside as it may be shown: what a reader cannot see, or a terminal would obey, becomes a visible escape.

Shown text is for people and models. It never goes back into a record, a citation's `quote` or a span: those keep the
record's own characters. A backslash that stands in the text is shown as it is, so the escapes are not an encoding.
"""

from __future__ import annotations

import re
from typing import Literal

# Joiners are right between emoji, and between letters of the scripts that spell with them; elsewhere they hide.
_EMOJI = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_JOINING = "\u0600-\u06ff\u0750-\u077f\u0900-\u0dff"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # C0 without tab and newline, DEL, C1
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # direction
    "|[\u00ad\u034f\u180b-\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb]"  # zero width and kin
    "|[\u115f\u1160\u3164\uffa0\u2028\u2029]"  # blank letters, line and paragraph separators
    "|[\U000e0000-\U000e007f]"  # tags: a whole hidden alphabet
    "|[\ud800-\udfff]"  # lone surrogates cannot be encoded
    f"|(?<![^{_SELECTORS}\\s])[{_SELECTORS}]"  # a variation selector with nothing to vary (runs carry hidden bytes)
    f"|(?:(?<![{_EMOJI}])|(?![\u200d][{_EMOJI}]))(?:(?<![{_JOINING}])|(?![\u200c\u200d][{_JOINING}]))[\u200c\u200d]"
)


def visible(text: str, *, newlines: Literal["keep", "mark"] = "keep") -> str:
    r"""`text` with control, bidi and zero-width characters as escapes (`\x1b`, `\u202e`, `\U000e0041`); linear time.

    Tabs stay. Newlines stay (`keep`) or become `⏎` (`mark`, for one-line views); CR LF counts as one newline.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = _HIDDEN.sub(_escape, text.replace("\r\n", "\n"))
    return shown.replace("\n", "⏎") if newlines == "mark" else shown


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code == 0x0D:
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
