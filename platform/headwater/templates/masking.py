"""What varies by nature in a message (numbers, ids, addresses, paths) becomes `<*>`: folding, masking, tokens, and back.

Everything here works on folded messages, in which every run of digits is one `0`. So two messages that fold alike have
the same template, and a cache in front of the masking by folded message gives exactly what no cache would give.
Every pattern is anchored so that it runs in time linear in the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

WILD = "<*>"
MESSAGE_CHARS = 4000  # of a message that are mined
_MOST_TOKENS = 240
_LONG_IDS = 24  # characters of a message that are ids, from which on they are long
_MOST_LINES = 300  # of a message, looked through for exceptions
_EXCEPTION = re.compile(
    r"\s{0,8}(?:Caused by: |panic: )?(?:[A-Za-z_][\w$]{0,80}\.){0,12}"
    r"[A-Z][\w$]{0,80}?(?:Error|Exception|Failure|Fault|Interrupt|Timeout)(?=:\s|\s*$)"
)

# Digits are one sign, and control characters are blanks.
_FOLD = bytes(48 if 48 <= b <= 57 else 32 if b < 32 or b == 127 else b for b in range(256))
_DIGITS = re.compile(rb"00+")
# Hexadecimal words and ids with at least one digit in the first group, as they look when folded.
_HEX = re.compile(r"\b(?:0[xX][0a-fA-F]+|(?=[a-fA-F]{0,40}0)[0a-fA-F]{2,}(?:-[0a-fA-F]+)*)\b")
_HEX_ASCII = re.compile(_HEX.pattern.encode())
_ENDS = "com|net|org|edu|gov|mil|info|biz|arpa|local|localdomain|internal|lan"
_COUNTRIES = (
    "ar|at|au|be|br|ca|ch|cl|cn|cz|de|dk|es|eu|fi|fr|gr|hk|"
    "hu|id|ie|il|in|ir|it|jp|kr|mx|my|nl|no|nz|pt|ro|ru|se|sg|th|tr|tw|ua|uk|us|vn|za"
)
# A sign without which the rule cannot match (most lines have few of them), the rule, and what it puts in place.
_MASKS = tuple(
    (sign, re.compile(pattern), by)
    for sign, pattern, by in (
        ("\\0", r"\\0", '"'),  # a quote as some writers escape it
        ("://", r"(?<![\w+.-])[a-z][a-z0+.-]{0,20}://[^\s,;\"'<>()\[\]]+", WILD),  # addresses of any scheme
        ("@", r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+", WILD),
        (
            "",
            r"(?:(?<=[\s=:\"'(\[,<])|^)(?:/+|\./|\.\./|[A-Za-z]:\\)(?:[\w.$@~+%*:?&=-]+[/\\]+)*[\w.$@~+%*:?&=-]*[\w/\\*]",
            WILD,
        ),  # paths
        (":", r"(?<![\w:.])(?:(?:0|[0a-fA-F]{2}):){5}(?:0|[0a-fA-F]{2})(?![\w:])", "0"),  # hardware addresses
        (
            ".",
            rf"(?<![\w.@/-])(?:(?:[\w-]{{1,63}}\.){{1,8}}(?:{_ENDS})|(?:[\w-]{{1,63}}\.){{2,8}}(?:{_COUNTRIES}))(?::0)?(?![\w@.(-])",
            WILD,
        ),  # hosts
        (":0", r"(?<![\w.@/-])(?:[\w-]{1,63}\.){2,8}[a-z]{2,20}:0(?![\w.:])", WILD),  # and others with a port
        (
            '="',
            r"(?<=[a-z_]=)(?<!msg=)(?<!message=)(?<!text=)(?<!event=)(?<!err=)(?<!error=)(?<!reason=)\"[^\"]{0,60}\"",
            f'"{WILD}"',
        ),
        ("{", r"(?<==)\w{1,60}\{[^{}]{0,300}\}", WILD),  # an object as some languages print it
        ("B", r"\b0(?:\.0)?\s?(?:[kKMGTP]i?B|B)\b(?!/)", "0"),  # sizes, whose unit varies with them
        ("<0", r"<0\s(?:s|ms|secs?|min)\b", "0"),
        ("", r"(?<=[=:])(\s{0,3})(?:true|false|null)\b", rf"\1{WILD}"),
        ("..", r"\.{3,}", " ... "),
        ("()", r"\(\)", f"({WILD})"),  # nothing where sometimes something is
        ("[]", r"\[\]", f"[{WILD}]"),
        ("=", r"(?<=\w=)(?=\s+[\w.]{1,40}=|\s*$)", WILD),
        ("user ", r"(?<=\buser )[\w.$-]+", WILD),
        (
            "",
            r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b(?=[ ,])|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b(?= +0)",
            WILD,
        ),
        ("_", r"\b([A-Za-z]{2,}_)[-+]?0[\w.$@-]*(?<![.-])", rf"\1{WILD}"),  # blk_123, attempt_1_0
        ("0", r"(?<![\w.$@+~-])\+?[\w.$@+~-]*?0(?:[\w.$@:+~-]|,(?=0))*(?<![.:-])", WILD),  # any other word with a digit
        (" from <", r"(?<=\bfor )[\w.$-]+(?= from <\*>)", WILD),  # who, where it says from where
        ("<*>", r"(\b[A-Za-z]{2,40}_<\*>|(?<!\S)<\*>)(?:[ ,;]+\1(?![\w=]))+", r"\1"),  # lists, whose length varies
    )
)
_RUN = re.compile(rf"(?:{re.escape(WILD)}[\s,;:./+-]*){{2,}}")
_TOKEN = re.compile(rf"{re.escape(WILD)}|[\w.$@/\\+-]+|(?:(?!{re.escape(WILD)})[^\w\s])+|\s+")


def condense(message: str) -> str:
    """A message of many lines as the one line it is known by: its first that is not blank, and of the exceptions named
    below it the first and the last, which is the root cause of a chain. Frames, dumps and continuations vary from one
    occurrence to the next; they stay searchable as words of the record."""
    lines = message.lstrip().split("\n", _MOST_LINES)[:_MOST_LINES]
    named = [line.strip()[:400] for line in lines[1:] if _EXCEPTION.match(line)]
    return " ".join(dict.fromkeys((lines[0].rstrip(), *named[:1], *named[-1:])))


def fold(message: str) -> bytes:
    """The message's first characters with every run of digits as one `0`."""
    return _DIGITS.sub(b"0", message[:MESSAGE_CHARS].encode("utf-8", "surrogatepass").translate(_FOLD))


def loose(key: bytes) -> tuple[bytes, bool]:
    """A folded message with hexadecimal ids as `0`, the second key; and whether those ids were long, so that the first key
    will hardly come again. Lone surrogates become U+FFFD."""
    if key.isascii():
        short = _HEX_ASCII.sub(b"0", key)
        return short, len(key) - len(short) > _LONG_IDS
    text = key.decode("utf-8", "replace")
    plain = _HEX.sub("0", text)
    return plain.encode(), len(text) - len(plain) > _LONG_IDS


def mask(text: str) -> str:
    """A folded message (`loose`, decoded) with what varies by nature replaced by `<*>`."""
    for sign, pattern, by in _MASKS:
        if sign in text:
            text = pattern.sub(by, text)
    return text


def tokens_of(masked: str) -> tuple[str, ...]:
    """Words, runs of punctuation, wildcards and blanks, cut at a fixed number; blanks at the ends are left out."""
    found = [" " if token.isspace() else token for token in _TOKEN.findall(masked.strip())[:_MOST_TOKENS]]
    while found and found[-1] == " ":
        found.pop()
    return tuple(found)


def text_of(tokens: Sequence[str]) -> str:
    """Tokens as a template's text; neighbouring wildcards are one."""
    return _RUN.sub(lambda m: WILD + (" " if m[0][-1:].isspace() else ""), "".join(tokens)).strip()


def embed_text(template: str) -> str:
    """What of a template is embedded: its words, identifiers split, wildcards gone. A template of wildcards stays as it is."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_/\\.$:=|#]+", " ", template.replace(WILD, " "))
    return " ".join(word for word in words.split() if any(map(str.isalnum, word))) or template
