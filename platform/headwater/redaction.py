"""Secrets and personal data found in text and taken out of it, before it is embedded or leaves the machine.

Each kind is one pattern whose shape is fixed by whoever issues such keys or numbers, checked by its own checksum where it has
one (cards: Luhn; IBAN: ISO 7064, mod 97-10). What is found becomes `[kind]`. All patterns have bounded repetitions: the time
grows with the length of the text. Names of people and postal addresses have no shape and are not found.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from headwater.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Concealed:
    """What was found: its kind, and the code points `[start, end)` of the text that it took."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text without what was found in it."""

    text: str
    found: tuple[Concealed, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of secret. `group` of the pattern is what is taken out; `hints` are texts (in small letters) one of which every
    match has: without any the pattern is not tried."""

    name: str
    family: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    group: int = 0
    accepts: Callable[[str], bool] | None = None


def _is_phone(text: str) -> bool:
    return 8 <= sum(c.isdecimal() for c in text) <= 15


def _luhn(text: str) -> bool:
    digits = [int(c) for c in text if c.isdecimal()]
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0 and len(set(digits)) > 1


def _iban(text: str) -> bool:
    compact = text.replace(" ", "").replace("-", "")
    if not 15 <= len(compact) <= 34:
        return False
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


_ORDINARY = re.compile(
    r"(?i)(?:null|nil|none|true|false|yes|no|undefined|empty|missing|required|invalid|incorrect|expired|wrong|failed|changed|reset"
    r"|string|str|bytes|unknown|given|set|unset|redacted|hidden|masked|[*x.\-_#]{3,}|[<\[{$%].*|.*\[[a-z-]+\])"
)


def _worth_hiding(value: str) -> bool:
    """Whether what is assigned to a password or key is one: not a word that tells of it, nor a place-holder."""
    return _ORDINARY.fullmatch(value) is None


def _mixed(value: str) -> bool:
    """Whether a bare word behind a colon looks like a secret rather than like the next word of a sentence."""
    both_cases = re.search(r"[a-z][^a-z]*[A-Z]|[A-Z][A-Z]*[a-z].*[A-Z]", value) is not None
    return _worth_hiding(value) and (both_cases or re.search(r"[0-9!@#$%^&*+/=]", value) is not None)


_NAMES = (
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret(?:[_-]?key)?|api[_-]?key|apikey|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key"
    r"|client[_-]?secret|signing[_-]?key|encryption[_-]?key|(?:auth|access|refresh|bearer|session|csrf|id)[_-]?token"
    r"|passwort|mot de passe|contrase\u00f1a)"
)
_CAMEL = (  # behind another word: dbPassword, secretAccessKey, SharedAccessKey
    r"(?:Pass(?:word|wd|phrase|code)|Pwd|Secret(?:Key)?|ApiKey|AccessKey(?:Id)?|AccountKey|PrivateKey|ClientSecret|SigningKey"
    r"|EncryptionKey|(?:Auth|Access|Refresh|Bearer|Session|Csrf|Id)Token)"
)
_NAMED = rf"(?:(?i:(?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,30}}[_.-]){{0,4}}{_NAMES})|(?<=[a-z0-9]){_CAMEL}|(?<=[A-Z]{{2}})PASSWORD)"
_HINTS = ("pass", "pwd", "secret", "key", "token", "session", "contrase\u00f1a")  # one of them is in every such name

_LETTERS = r"A-Za-z0-9\u00c0-\u024f\u0370-\u04ff"  # of addresses: Latin, Greek, Cyrillic
_PHONE = r"(?:tele)?phone|mobile|telefon|t\u00e9l\u00e9phone|mobil|handy|whatsapp|tel|fax|\u624b\u673a|\u7535\u8bdd"

KINDS: tuple[Kind, ...] = (
    Kind(
        "private-key",
        "secrets",
        re.compile(
            r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,20000}?"
            r"(?:-----END [A-Z0-9 ]{0,60}-----|\Z)"
        ),
        ("private key",),
    ),
    Kind(
        "aws-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
        ("akia", "asia", "agpa", "aida", "aroa", "anpa"),
    ),
    Kind(
        "github-token",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})(?![A-Za-z0-9])"),
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    Kind(
        "gitlab-token",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])gl(?:pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_.-]{20,100}"),
        ("glpat-", "glptt-", "gldt-", "glrt-", "glcbt-", "glsoat-"),
    ),
    Kind(
        "slack-token",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,250}"),
        ("xox",),
    ),
    Kind(
        "slack-hook",
        "secrets",
        re.compile(r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{10,200}"),
        ("hooks.slack.com",),
    ),
    Kind(
        "stripe-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])(?:sk|rk|pk|whsec)_(?:live_|test_)?[A-Za-z0-9]{16,250}(?![A-Za-z0-9])"),
        ("sk_", "rk_", "pk_", "whsec_"),
    ),
    Kind(
        "model-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])sk-(?:ant-|proj-|svcacct-|or-)?[A-Za-z0-9_-]{20,250}"),
        ("sk-",),
    ),
    Kind(
        "google-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,500})"),
        ("aiza", "ya29."),
    ),
    Kind(
        "hugging-face-token",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,100}(?![A-Za-z0-9])"),
        ("hf_",),
    ),
    Kind(
        "package-token",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,400}|dop_v1_[a-f0-9]{64})(?![A-Za-z0-9])"),
        ("npm_", "pypi-", "dop_v1_"),
    ),
    Kind(
        "sendgrid-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}"),
        ("sg.",),
    ),
    Kind(
        "twilio-key",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])SK[0-9a-f]{32}(?![A-Za-z0-9])"),
        ("sk",),
    ),
    Kind(
        "jwt",
        "secrets",
        re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}(?:\.[A-Za-z0-9_-]{0,2000})?"),
        ("eyj",),
    ),
    Kind(
        "url-password",
        "secrets",
        re.compile(r"(?<=://)[^\s/@:?#\"'<>]{0,100}:([^\s/@\"'<>]{1,200})(?=@)"),
        ("://",),
        group=1,
        accepts=_worth_hiding,
    ),
    Kind(
        "authorization",
        "secrets",
        re.compile(
            r"(?i)(?:authorization[\"']?\s{0,5}[:=]\s{0,5}[\"']?(?:bearer|basic|token|digest|apikey)\s{1,5})"
            r"([A-Za-z0-9_.~+/=-]{12,4000})"
        ),
        ("authorization",),
        group=1,
    ),
    Kind(
        "authorization",
        "secrets",
        re.compile(r"(?i)(?<![a-z])bearer\s{1,5}([A-Za-z0-9_.~+/=-]{12,4000})"),
        ("bearer",),
        group=1,
        accepts=_mixed,
    ),
    Kind(
        "password",
        "secrets",
        re.compile(_NAMED + r"\\{0,3}[\"']?\s{0,3}(?:=>|[:=])\s{0,3}[bru]?(\\{0,3}[\"'])((?:(?!\1)[^\n]){3,300})\1"),
        _HINTS,
        group=2,
        accepts=_worth_hiding,
    ),
    Kind(
        "password",
        "secrets",
        re.compile(_NAMED + r"=([^\s\"',;&)\]}]{3,300})"),
        _HINTS,
        group=1,
        accepts=_worth_hiding,
    ),
    Kind(
        "password",
        "secrets",
        re.compile(_NAMED + r"\s{0,3}(?::|=\s)\s{0,3}([^\s\"',;&)\]}]{6,300})"),
        _HINTS,
        group=1,
        accepts=_mixed,
    ),
    Kind(
        "password",
        "secrets",
        re.compile(
            rf"(?i)(?<![\w-])--(?!no-|reset-|change-)(?:[a-z0-9]{{1,30}}-){{0,3}}{_NAMES}[= ]"
            r"([^\s\"']{3,300})"
        ),
        _HINTS,
        group=1,
        accepts=_worth_hiding,
    ),
    Kind(
        "password",
        "secrets",
        re.compile(_NAMED + r">([^<>\n]{3,300})</"),
        _HINTS,
        group=1,
        accepts=_worth_hiding,
    ),
    Kind(
        "token",
        "secrets",
        re.compile(
            r"(?<![A-Za-z0-9])(?:shp(?:at|ca|pa|ss)_[a-f0-9]{32}|hv[sb]\.[A-Za-z0-9_-]{20,300}|dapi[a-f0-9]{32}"
            r"|AGE-SECRET-KEY-1[A-Z0-9]{50,70})(?![A-Za-z0-9])"
        ),
        ("shp", "hvs.", "hvb.", "dapi", "age-secret-key-"),
    ),
    Kind(
        "token",
        "secrets",
        re.compile(r"(?i)[?&;](?:(?:x-amz-|x-goog-)?signature|sig|x-amz-security-token)=([A-Za-z0-9%+/=_.-]{16,2000})"),
        ("sig", "x-amz-security-token"),
        group=1,
    ),
    Kind(
        "token",
        "secrets",
        re.compile(
            r"(?i)(?<![\w-])(?:set-)?cookie[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
            r"([\w.-]{1,80}=[^\s;\"',]{8,4000}(?:;\s?[\w.-]{1,80}=[^\s;\"',]{1,4000}){0,50})"
        ),
        ("cookie",),
        group=1,
        accepts=_worth_hiding,
    ),
    Kind(
        "token",
        "secrets",
        re.compile(r"(?i)(?<![A-Za-z0-9_-])token[\"']?\s{0,3}[:=]\s{0,3}[\"']?([A-Za-z0-9_.~+/=-]{16,2000})"),
        ("token",),
        group=1,
        accepts=_mixed,
    ),
    Kind(
        "email",
        "personal",
        re.compile(
            rf"(?<![{_LETTERS}._%+-])[{_LETTERS}._%+-]{{1,64}}(?:@|%40)"
            rf"(?:[{_LETTERS}](?:[{_LETTERS}-]{{0,61}}[{_LETTERS}])?\.){{1,8}}[A-Za-z\u00c0-\u024f\u0370-\u04ff]{{2,24}}"
            rf"(?![{_LETTERS}-])"
        ),
        ("@", "%40"),
        accepts=lambda text: not text.startswith("git@"),
    ),
    Kind(
        "card",
        "personal",
        re.compile(  # begins with a set of digits, of which the search knows where they are, and looks back from there
            r"[2-6](?<![\w.+-][2-6])(?:(?:(?<=4)\d{3}|(?<=5)[1-5]\d\d|(?<=2)(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"
            r"|(?<=6)(?:011|5\d\d|4[4-9]\d)|(?<=3)5(?:2[89]|[3-8]\d))(?:[ -]?\d{4}){3}"
            r"|(?<=3)[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\w-])"
        ),
        accepts=_luhn,
    ),
    Kind(
        "iban",
        "personal",
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"),
        accepts=_iban,
    ),
    Kind(
        "ssn",
        "personal",
        re.compile(r"(?<![\w.-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"),
        ("-",),
    ),
    Kind(
        "phone",
        "personal",
        re.compile(
            r"(?<![\w.+/-])(?:(?:\+|%2B)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}|(?<!:)(?:1[ .-])?(?:\([2-9]\d\d\) ?"
            r"|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4})(?![\w]|[.:-]\d)"
        ),
        accepts=_is_phone,
    ),
    Kind(
        "phone",
        "personal",
        re.compile(
            rf"(?i)(?<![^\W_])(?:{_PHONE})(?:[_ ]?(?:number|no|nr))?[\"']?\s{{0,3}}[.:=]?\s{{0,3}}[\"']?"
            r"([+(]?\d[\d ()./-]{6,18}\d)(?![\w]|[.:-]\d)"
        ),
        ("phone", "mobil", "tel", "t\u00e9l", "handy", "whatsapp", "fax", "\u624b\u673a", "\u7535\u8bdd"),
        group=1,
        accepts=_is_phone,
    ),
    Kind(
        "ssn",
        "personal",
        re.compile(
            r"(?i)(?<![A-Za-z0-9])(?:ssn|social security(?: number| no)?)[\"']?\s{0,3}[.:=#]?\s{0,3}[\"']?"
            r"((?!000|666|9)\d{3}[ -]?(?!00)\d\d[ -]?(?!0000)\d{4})(?![\w-])"
        ),
        ("ssn", "social security"),
        group=1,
    ),
    Kind(
        "ip",
        "network",
        re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)"),
        (".",),
    ),
    Kind(
        "ip",
        "network",
        re.compile(
            r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}"
            r"(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])"
        ),
        (":",),
    ),
    Kind(
        "mac",
        "network",
        re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}(?![\w:-])"),
        (":", "-"),
    ),
)
FAMILIES = tuple(dict.fromkeys(kind.family for kind in KINDS))
NAMES = tuple(dict.fromkeys(kind.name for kind in KINDS))
DEFAULT = ("secrets", "personal")  # addresses of machines are what logs are read for


class Redactor:
    """Takes some kinds out of texts. `kinds` are names of kinds or of families (`secrets`, `personal`, `network`); `extra` are
    patterns of your own by name. Raises ConfigError for unknown kinds and patterns that do not compile."""

    def __init__(self, kinds: Iterable[str] = DEFAULT, extra: Mapping[str, str] | None = None) -> None:
        wanted = set(kinds)
        if unknown := sorted(wanted - {*NAMES, *FAMILIES}):
            raise ConfigError(f"{unknown[0]!r} is no kind of secret; there are {', '.join((*FAMILIES, *NAMES))}")
        own = tuple(Kind(name, "own", _compiled(name, pattern)) for name, pattern in (extra or {}).items())
        self.kinds = (*own, *(kind for kind in KINDS if wanted & {kind.name, kind.family}))
        self._names = frozenset(kind.name for kind in self.kinds)
        self._groups = [(hints, tuple(alike)) for hints, alike in itertools.groupby(self.kinds, key=lambda kind: kind.hints)]

    @classmethod
    def of(cls, entries: Iterable[str]) -> Redactor:
        """What a setting names: kinds and families, and `NAME=PATTERN` for patterns of your own."""
        pairs = [entry.partition("=") for entry in entries]
        for name, equals, _ in pairs:
            if equals and not _OWN.fullmatch(name):
                raise ConfigError(f"{name[:40]!r} cannot name a pattern; use letters, digits, dash and underscore (at most 40)")
        return cls([name for name, equals, _ in pairs if not equals], {n: pattern for n, equals, pattern in pairs if equals})

    def find(self, text: str) -> tuple[Concealed, ...]:
        """What is to be hidden, in order, none overlapping: of two that do the earlier and longer one."""
        small = text.lower()
        found = [
            Concealed(kind.name, *match.span(kind.group))
            for hints, alike in self._groups
            if not hints or any(hint in small for hint in hints)
            for kind in alike
            for match in kind.pattern.finditer(text)
            if kind.accepts is None or kind.accepts(match[kind.group])
        ]
        kept: list[Concealed] = []
        for one in sorted(found, key=lambda c: (c.start, -c.end)):
            if one.end > one.start and (not kept or one.start >= kept[-1].end):
                kept.append(one)
        return tuple(kept)

    def redact(self, text: str) -> Redacted:
        """The text with `[kind]` in place of what was found."""
        found = self.find(text)
        if not found:
            return Redacted(text, ())
        parts, at = [], 0
        for one in found:
            parts += [text[at : one.start], f"[{one.kind}]"]
            at = one.end
        return Redacted("".join([*parts, text[at:]]), found)

    def text(self, text: str) -> str:
        """The text redacted; what is JSON stays JSON, and is looked into behind its escapes."""
        plain = self.redact(text).text
        if text.lstrip()[:1] not in ("{", "[") or (plain is text and "\\" not in text):
            return plain
        try:
            inside = orjson.loads(text)
        except orjson.JSONDecodeError:
            return plain
        hidden = self.redact_all(inside)
        if hidden == inside and _is_json(plain):
            return plain
        whole = orjson.dumps(hidden).decode()
        again = self.redact(whole).text  # what only shows beside its neighbours, such as `"password": "..."`
        return again if _is_json(again) else whole

    def redact_all(self, value: Any) -> Any:
        """A JSON value with every text in it redacted; the names of members stay. A text under a name such as `password` is
        hidden whole, and so is a number of a card, or one to dial under a name such as `phone`."""
        if isinstance(value, str):
            return self.redact(value).text
        if isinstance(value, int) and not isinstance(value, bool):
            shown = str(value)
            return value if (hidden := self.redact(shown).text) == shown else hidden
        if isinstance(value, Mapping):
            return {name: self._member(str(name), inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_all(inner) for inner in value]
        return value

    def _member(self, name: str, value: Any) -> Any:
        phone = isinstance(value, str | int) and "phone" in self._names and _PHONE_NAME.search(name)
        if phone and _DIALLED.fullmatch(str(value)):
            return "[phone]"
        secret = isinstance(value, str) and "password" in self._names and _SECRET_NAME.search(name)
        return "[password]" if secret and _worth_hiding(value) and len(value) > 2 else self.redact_all(value)


_SECRET_NAME = re.compile(rf"{_NAMED}\Z")
_PHONE_NAME = re.compile(rf"(?i)(?<![^\W_])(?:{_PHONE})(?:[_ ]?(?:number|no|nr))?\Z|(?<=[a-z])(?:Phone|Mobile)(?:Number)?\Z")
_DIALLED = re.compile(r"[+(]?\d[\d ()./-]{6,18}\d")
_OWN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
NESTED = re.compile(r"\((?:[^()\\]|\\.)*[+*](?:[^()\\]|\\.)*\)[+*{]")
"""A repetition within a repetition: some text makes such a pattern take for ever."""


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    if NESTED.search(pattern):
        raise ConfigError(f"pattern {name!r} repeats a repetition, which can take for ever; write it without, as [a-z]+")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"pattern {name!r} is not a regular expression: {error}") from error


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
