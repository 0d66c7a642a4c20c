"""Records without their secrets, as a topic's setting `redact` asks for: before they are stored.

The log never has what was found, and so nothing that is made of it has: passages, vectors, the keyword index, hits, prompts,
exports, backups. What was stored before the setting stays as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from headwater.records import Draft, Scalar
from headwater.redaction import Redactor

_PSEUDONYM_BYTES = 6


class Redacting:
    """What one topic takes out. `secret` is the data directory's: only who has it can check a guess at what a key was."""

    def __init__(self, kinds: Sequence[str], secret: bytes) -> None:
        """ConfigError for a kind that there is none of, or a pattern that is none."""
        self._redactor, self._secret = Redactor.of(kinds), secret

    def text(self, text: str) -> str:
        """The text with `[kind]` for what was found; JSON stays JSON."""
        return self._redactor.text(text)

    def key(self, key: str) -> str:
        """The key with `[kind:pseudonym]`: the same for the same key, so that what belongs together stays together."""
        parts, at = [], 0
        for one in self._redactor.find(key):
            hidden = key[one.start : one.end].encode("utf-8", "surrogatepass")
            name = hashlib.blake2b(hidden, key=self._secret, digest_size=_PSEUDONYM_BYTES).hexdigest()
            parts += [key[at : one.start], f"[{one.kind}:{name}]"]
            at = one.end
        return "".join([*parts, key[at:]])

    def attributes(self, attributes: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Flat attributes; a text under a name such as `password` is hidden whole."""
        hidden: dict[str, Scalar] = self._redactor.redact_all(attributes)
        return hidden

    def draft(self, draft: Draft) -> Draft:
        """The draft as it may be stored. The bytes behind a text that was no UTF-8 go: they could hold what the text hides."""
        value, key = self.text(draft.value), None if draft.key is None else self.key(draft.key)
        body = draft.body if value == draft.value else None
        return draft._replace(value=value, key=key, attributes=self.attributes(draft.attributes), raw=None, body=body)
