"""The verbs of webhooks: made, listed, tested, paused, removed."""

from __future__ import annotations

import os
import random
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import anyio.to_thread

from headwater.detect.detectors import Detectors
from headwater.errors import ConflictError, LimitError, NotFoundError, UsageError
from headwater.log import webhooks as store
from headwater.log.store import Log
from headwater.log.webhooks import CallRow, Hook
from headwater.records import from_ms
from headwater.records.webhooks import ALL, Call, CallKind, Tested, Webhook, WebhookState
from headwater.stock import Stock
from headwater.verbs.webhooks import SECRET, TRIES
from headwater.watch.running import Watching
from headwater.watch.verbs import Watches
from headwater.webhooks import signing
from headwater.webhooks.calling import check_url
from headwater.webhooks.running import About, Calling

T = TypeVar("T")
MOST = 50  # webhooks of an engine
MOST_TRIES = 1000
_SHOWN = 20  # calls of a webhook that have not succeeded
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Webhooks:
    """Implements headwater.verbs.webhooks.WebhookVerbs; `run` calls them."""

    def __init__(
        self, log: Log, stock: Stock, watching: Watching, watches: Watches, detectors: Detectors, *, clock_ms: Callable[[], int]
    ) -> None:
        self._log, self._stock, self._watches, self._detectors, self._clock_ms = log, stock, watches, detectors, clock_ms
        self._calling = Calling(
            log, self._about, bells=lambda: (watching.any_bell, detectors.bell), environment=os.environ, clock_ms=clock_ms,
            rng=random.Random(),
        )  # fmt: skip
        self.run = self._calling.run

    def _about(self, call: CallRow) -> About | None:
        return self._detectors.alert(call.of, call.at) if call.kind == "alert" else self._watches.hit(call.of, call.at)

    # ------------------------------------------------------------------ made and removed

    async def add(
        self, url: str, *, name: str | None = None, alerts: Sequence[str] = (), watches: Sequence[str | int] = (),
        secret: str = SECRET, allow_private: bool = False, tries: int = TRIES,
    ) -> Webhook:  # fmt: skip
        """As WebhookVerbs.add_webhook."""
        if name is not None and not _NAME.fullmatch(name):
            raise UsageError(f"{name[:40]!r} is no name of a webhook: letters, digits and ._- (at most 100), not digits alone")
        if not 1 <= tries <= MOST_TRIES:
            raise UsageError(f"tries must be between 1 and {MOST_TRIES:,}")
        if not alerts and not watches:
            raise UsageError("say what to call it for: alerts of topics, or watches; `*` for all of them")
        check_url(url, allow_private=allow_private)
        signing.keys_of(secret, os.environ)
        return await _thread(self._add, url, name, alerts, watches, secret, allow_private, tries)

    def _add(
        self, url: str, name: str | None, alerts: Sequence[str], watches: Sequence[str | int], secret: str, private: bool,
        tries: int,
    ) -> Webhook:  # fmt: skip
        wanted: set[tuple[CallKind, int]] = {("alert", 0 if t == ALL else self._stock.find(t).row.id) for t in alerts}
        wanted |= {("watch", 0 if w == ALL else self._watches.id_of(w)) for w in watches}
        held = store.read(self._log)
        if len(held) >= MOST:
            raise LimitError(f"there are {MOST} webhooks, the most there can be; `headwater webhook rm` removes one")
        if any(hook.name == name for hook in held):
            raise ConflictError(f"a webhook {name!r} exists already; `headwater webhook rm {name}` removes it")
        now = self._clock_ms()
        made = self._log.write(lambda db: store.create(db, name, url, secret, private, tries, now, sorted(wanted)))
        return self._one(made)

    async def remove(self, id: int | str) -> None:
        """As WebhookVerbs.remove_webhook."""
        await _thread(self._change, id, store.drop)

    async def pause(self, id: int | str) -> Webhook:
        """As WebhookVerbs.pause_webhook."""
        found = await _thread(self._change, id, lambda db, hook: store.pause(db, hook, "it was paused"))
        return await self.one(found)

    async def resume(self, id: int | str) -> Webhook:
        """As WebhookVerbs.resume_webhook."""
        found = await _thread(self._change, id, store.resume)
        self._calling.wake()
        return await self.one(found)

    def _change(self, id: int | str, work: Callable[[Any, int], None]) -> int:
        hook = self._find(id)
        self._log.write(lambda db: work(db, hook.id))
        return hook.id

    # ------------------------------------------------------------------ seen

    async def all(self) -> list[Webhook]:
        """As WebhookVerbs.webhooks."""
        return await _thread(self._all)

    async def one(self, id: int | str) -> Webhook:
        """As WebhookVerbs.webhook."""
        return await _thread(self._one, id)

    async def test(self, id: int | str) -> Tested:
        """As WebhookVerbs.test_webhook."""
        hook = await _thread(self._find, id)
        done = await self._calling.send_test(hook, f"test-{secrets.token_hex(8)}")
        return Tested(done.ok, done.status, done.error, done.seconds)

    def troubles(self) -> list[str]:
        """Webhooks that fail, in words."""
        return [f"webhook {hook.name}: {hook.error}" for hook in store.read(self._log) if hook.error is not None]

    def counts(self) -> dict[str, int]:
        """Webhooks by state, and their calls by what became of them."""
        held, waiting = store.read(self._log), store.counts(self._log).values()
        states = [_state(hook) for hook in held]
        return {
            **{state: states.count(state) for state in ("ready", "failing", "paused")},
            "sent": sum(hook.sent for hook in held), "waiting": sum(calls for calls, _ in waiting),
            "given up": sum(lost for _, lost in waiting), "dropped": sum(hook.dropped for hook in held),
        }  # fmt: skip

    def _find(self, id: int | str) -> Hook:
        for hook in store.read(self._log):
            if str(id) in (str(hook.id), hook.name):
                return hook
        raise NotFoundError(f"no webhook {str(id)[:100]!r}; `headwater webhook list` shows them")

    def _all(self) -> list[Webhook]:
        return [self._view(hook) for hook in store.read(self._log)]

    def _one(self, id: int | str) -> Webhook:
        hook = self._find(id)
        return self._view(hook, store.calls(self._log, hook.id, _SHOWN))

    def _view(self, hook: Hook, calls: Sequence[CallRow] = ()) -> Webhook:
        topics = {topic.row.id: topic.row.name for topic in self._stock.choose(None)}
        names: dict[CallKind, list[str]] = {"alert": [], "watch": []}
        for kind, of in store.meant(self._log).get(hook.id, []):
            name = ALL if of == 0 else topics.get(of) if kind == "alert" else self._watches.name_of(of)
            names[kind] += [name] if name is not None else []
        waiting, lost = store.counts(self._log).get(hook.id, (0, 0))
        state = _state(hook)
        next_ms = store.due(self._log).get(hook.id)
        return Webhook(
            hook.id, hook.name, hook.url, tuple(names["alert"]), tuple(names["watch"]), hook.secret, hook.private, hook.tries,
            from_ms(hook.created_ms), state, hook.paused or hook.error, hook.sent, waiting, lost, hook.dropped,
            _time(hook.sent_ms), _time(hook.failed_ms),
            None if next_ms is None else from_ms(max(next_ms, self._clock_ms())),
            tuple(self._told(call, hook, topics) for call in calls),
        )  # fmt: skip

    def _told(self, call: CallRow, hook: Hook, topics: dict[int, str]) -> Call:
        about = f"{topics.get(call.of, '?')}-{call.at}" if call.kind == "alert" else f"{call.of}-{call.at}"
        due = None if call.due_ms is None else from_ms(max(call.due_ms, hook.wait_ms, self._clock_ms()))
        state = "given up" if call.due_ms is None else "waiting"
        return Call(call.id, call.kind, about, from_ms(call.made_ms), state, call.tries, due, call.error)  # type: ignore[arg-type]


def _state(hook: Hook) -> WebhookState:
    return "paused" if hook.paused is not None else "failing" if hook.error is not None else "ready"


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)


async def _thread(work: Callable[..., T], *args: Any) -> T:
    return await anyio.to_thread.run_sync(work, *args)
