from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.lines.reading import LineReader
from headwater.templates.mining import Miner, TemplateReader, decide, embed_text
from imitations import lines_of, system_names

NOW_MS = 1_763_720_000_000


def reader_of(miner: Miner) -> TemplateReader:
    return TemplateReader(LineReader(lambda: NOW_MS), miner)


def grouping_accuracy(truth: Sequence[str], found: Sequence[str]) -> float:
    """The share of lines whose group holds exactly the lines of their true group."""
    sizes, groups = Counter(truth), defaultdict(Counter)
    for true, group in zip(truth, found, strict=True):
        groups[group][true] += 1
    whole = [members for members in groups.values() if len(members) == 1]
    return sum(n for members in whole for true, n in members.items() if n == sizes[true]) / len(truth)


class Store:
    """State rows and aliases as a log keeps them."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.aliases: dict[str, str] = {}

    def take(self, miner: Miner) -> int:
        changes = miner.take_changes()
        self.rows.update(changes.rows)
        for old, new in changes.generalised:
            assert old not in self.aliases
            self.aliases[old] = new
        return len(changes.rows)

    def resolve(self, template: str) -> str:
        for _ in range(10_000):
            if template not in self.aliases:
                return template
            template = self.aliases[template]
        raise AssertionError("aliases go round in a circle")


@pytest.mark.parametrize("system", system_names())
def test_lines_of_unseen_systems_group_by_what_made_them(system: str) -> None:
    lines = lines_of(system, 1000, seed=7)
    miner, store = Miner(), Store()
    mined = [reader_of(miner).template(line) for line, _ in lines]
    store.take(miner)
    assert grouping_accuracy([true for _, true in lines], [store.resolve(t) for t in mined]) >= 0.9


def test_numbers_ids_addresses_and_paths_are_wildcards() -> None:
    mine = Miner().mine
    assert mine("user 17 logged in from 10.0.0.1:8080") == mine("user 4 logged in from 192.168.7.255:22")
    assert mine("read /var/lib/a.db in 12 ms") == "read <*> in <*> ms"
    assert mine("token 3f2504e0-4f89-11d3-9a0c-0305e82c3301 expired") == "token <*> expired"
    assert mine("at 0xdeadbeef00 of https://a.b/c?d=1 for ann@example.org") == "at <*> of <*> for <*>"
    assert mine("deleting blk_-123 now") == mine("deleting blk_77 now") == "deleting blk_<*> now"


def test_few_values_stay_apart_and_many_become_a_wildcard() -> None:
    miner = Miner()
    assert miner.mine("service opened by the operator") != miner.mine("service closed by the operator")
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    first = miner.mine("job alpha has been accepted by the scheduler")
    assert first == "job alpha has been accepted by the scheduler"
    for name in names:
        last = miner.mine(f"job {name} has been accepted by the scheduler")
    assert last == "job <*> has been accepted by the scheduler"
    assert miner.mine("job alpha has been accepted by the scheduler") == last  # the cache gives the survivor
    assert miner.survivor(first) == last
    assert (first, last) in miner.take_changes().generalised


def test_a_line_of_a_known_shape_changes_no_state() -> None:
    miner = Miner()
    for n in range(1000):
        miner.mine(f"request {n} took {n * 7} ms")
    assert len(miner.take_changes().rows) == 1
    miner.mine("request 5 took 9 ms")
    assert miner.take_changes().rows == ()


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\0"])
def test_a_blank_message_has_an_empty_template(text: str) -> None:
    miner = Miner()
    assert miner.mine(text) == ""
    assert reader_of(miner).template(text) == ""
    assert miner.take_changes().rows == ()


def test_a_literal_wildcard_in_a_message_is_safe() -> None:
    miner = Miner()
    assert miner.mine("user <*> left") == miner.mine("user 5 left") == "user <*> left"
    assert miner.mine("<*>") == "<*>"
    assert Miner(miner.take_changes().rows).mine("user <*> left") == "user <*> left"


@pytest.mark.parametrize(
    "message",
    [
        "a" * 1_000_000,
        "a-" * 500_000,
        "a@" * 500_000,
        "1 " * 500_000,
        "/" * 1_000_000,
        "=" * 1_000_000,
        "e\u0301" * 500_000,
        "\ud800" * 9,
    ],
)
def test_monstrous_messages_have_a_bounded_template(message: str) -> None:
    template = reader_of(Miner()).template(message)
    assert len(template) <= 12_000
    template.encode("utf-8")


_SHAPES = st.sampled_from(
    [
        "session opened for {w} by {w}",
        "session closed for {w}",
        "state of {w} changed from {S} to {S}",
        "took {n} ms for {w} on {h}",
        "{w} {w} {w}",
        "{n} {w} x {n}",
        "key={w} other={n} {w}",
        "<*> {w} ({w}) [{n}]",
    ]
)
_WORDS = st.sampled_from([f"{a}{b}" for a in "abcdef" for b in ("", "lpha", "eta.net", "AMMA", "7")])
_MESSAGES = st.lists(
    st.builds(
        lambda shape, w, s, n, h: shape.replace("{w}", w, 1).replace("{w}", s.lower(), 1).format(w=w, S=s, n=n, h=h),
        _SHAPES,
        _WORDS,
        st.sampled_from(["UP", "DOWN", "IDLE", "LOST"]),
        st.integers(0, 999),
        _WORDS,
    ),
    max_size=80,
)


@settings(deadline=None, max_examples=150)
@given(_MESSAGES, st.lists(st.integers(0, 80), max_size=3))
def test_saving_and_restoring_anywhere_changes_nothing(messages: list[str], saves: list[int]) -> None:
    whole, whole_store, store = Miner(), Store(), Store()
    expected = [whole.mine(message) for message in messages]
    whole_store.take(whole)
    miner, found = Miner(), []
    for number, message in enumerate(messages):
        if number in saves:
            store.take(miner)
            miner = Miner(reversed(store.rows.items()))
        found.append(miner.mine(message))
    store.take(miner)
    assert found == expected
    assert store.aliases == whole_store.aliases
    assert [miner.mine(m) for m in messages] == [whole.mine(m) for m in messages]


@settings(deadline=None, max_examples=100)
@given(_MESSAGES)
def test_what_is_returned_is_never_an_alias_and_lives_on_in_the_last_template(messages: list[str]) -> None:
    miner, store = Miner(), Store()
    for message in messages:
        template = miner.mine(message)
        store.take(miner)
        assert store.resolve(template) == template == miner.survivor(template)
    for message in messages:
        final = miner.mine(message)
        store.take(miner)
        assert store.resolve(final) == final


def test_random_words_do_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.templates.mining._MOST_GROUPS", 300)
    rng = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    miner, seen = Miner(), set()
    for _ in range(4000):
        words = ["".join(rng.choices(letters, k=6)) for _ in range(rng.randrange(1, 9))]
        seen.add(miner.survivor(miner.mine(" ".join(words))))
    groups = [name for name, _ in miner.take_changes().rows if name.isdigit()]
    assert len(groups) <= 310
    assert len({miner.survivor(template) for template in seen}) < 1200


def test_templates_do_not_depend_on_what_was_cached() -> None:
    lines = [line for line, _ in lines_of("batch", 300)]
    once, twice = Miner(), Miner()
    first = [once.mine(line) for line in lines]
    for line in lines:
        twice.mine(line)
    assert [once.mine(line) for line in lines] == [twice.mine(line) for line in lines]
    assert len(set(first)) <= len(set(lines))


def test_what_is_embedded_has_words_and_no_wildcards() -> None:
    assert embed_text("Failed password for <*> from <*> port <*>") == "Failed password for from port"
    assert embed_text("WindowManager.showSurface: <*> tx_id=<*>") == "Window Manager show Surface tx id"
    assert embed_text("<*>") == "<*>"


@pytest.mark.parametrize("system", system_names())
def test_machine_lines_are_templates_from_the_first_line_on(system: str) -> None:
    lines = [line for line, _ in lines_of(system, 60)]
    assert decide(lines) == "template"
    assert all(decide([line]) == "template" for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        '{"time":"2024-01-01T00:00:00Z","level":"info","msg":"user logged in","id":7}',
        'level=warn ts=2024-01-01T00:00:00Z msg="slow query" ms=120',
        "2024-01-01 12:00:00 connection to db-1 lost",
        "ERROR: could not open relation with OID 16385",
    ],
)
def test_one_structured_or_stamped_line_is_a_template(text: str) -> None:
    assert decide([text]) == "template"


@pytest.mark.parametrize(
    "text",
    [
        "How do I change my passcode?",
        "I think my card was charged twice, can you check please",
        "[10:22] <ann> have you tried turning it off and on again?",
        "[10:23]  * bob waves",
        "=== carol is now known as dave",
        "Can you tell me what time the museum opens on Sundays?",
        "Where is the nearest cash machine that takes this card",
        "hello",
        '{"text":"I was charged twice for my order, please help","user":"ann"}',
        "2024-01-01 12:00 I do not think that we should do this before they have told us why it is so",
        "Meine Rechnung Nr. 4711 ist falsch, bitte prüfen Sie das noch einmal",
        "El cliente 82218 indica que no le llega la factura desde hace 9 días. Se reinicia el equipo.",
        "O cliente 4411 não recebeu a fatura 88 do mês",
        "Заказ 4411 не пришёл, верните деньги",
    ],
)
def test_prose_and_chat_are_never_templates(text: str) -> None:
    assert decide([text]) == "exact"
    assert decide([text] * 50) == "exact"


def test_long_prose_is_cut_into_chunks() -> None:
    paragraph = "The river rises in the hills to the north of the town, and it has been dammed in three places since the war. "
    assert decide([paragraph * 12]) == "chunks"
    assert decide([paragraph * 12] * 20 + [paragraph]) == "chunks"
    assert decide([paragraph]) == "exact"


def test_nothing_to_judge_is_exact() -> None:
    assert decide([]) == "exact"
    assert decide(["", " \n"]) == "exact"


def test_a_stack_trace_is_known_by_its_first_line_and_its_exceptions() -> None:
    reader = reader_of(Miner())
    head = "2026-01-01 10:00:00 ERROR shop.Cart: request 7 failed\n"
    trace = head + "java.lang.IllegalStateException: no slot 3\n" + "\tat a.b.C.run(C.java:7)\n" * 3
    cause = "Caused by: java.net.SocketTimeoutException: Read timed out\n\t... 3 more\n"
    known = "request <*> failed java.lang.IllegalStateException: no slot <*>"
    assert reader.template(trace) == known
    assert reader.template(trace + "\tat x.Y.z(Y.java:3)\n" + cause) == f"{known} {cause.partition(chr(10))[0]}"
    assert reader.template("Traceback (most recent call last):\n  File 'x', line 3\nValueError: bad value 5\n") == (
        "Traceback (most recent call last): ValueError: bad value <*>"
    )
    assert reader.template("2026-01-01 10:00:00 INFO a.B: plan is\n  step 1\n  step 2") == "plan is"


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("lease for ad:de:fb:00:1f:aa on wire", "lease for <*> on wire"),
        ("mail.acme.org refused, www.shop.com.br:443 did not", "<*> refused, <*> did not"),
        ("org.acme.Store opened app.py and lib.so", "org.acme.Store opened app.py and lib.so"),
        ('hold tag="view lock" owner=null by Source', 'hold tag="<*>" owner=<*> by Source'),
        ('failed msg="no such table"', 'failed msg="no such table"'),
        ("login for mallory from 10.0.0.1", "login for <*> from <*>"),
        ("cache grew to 5.2 KB in <1 sec", "cache grew to <*> in <*>"),
    ],
)
def test_what_varies_by_nature_is_a_wildcard(message: str, template: str) -> None:
    assert Miner().mine(message) == template
