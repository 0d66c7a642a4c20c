"""Remote embedders against a server that speaks the wire format, with faults on demand; and the fallback."""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from fake_openai import FAULTS, FakeOpenAI, Patience, vector_of
from headwater.config import EmbeddingSettings
from headwater.embed import Embedder, Fallback, Kind, VectorCache, load
from headwater.embed.endpoint import check_endpoint, refuse_private
from headwater.embed.hash import HashEmbedder
from headwater.embed.openai import OpenAIEmbedder
from headwater.errors import ConfigError, EmbedError, NotFoundError

CANARY = "sk-canary-Zq81xw"


class Waits:
    """A sleep that only notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def remote(server: FakeOpenAI, waits: Waits | None = None, **options: Any) -> OpenAIEmbedder:
    settings: dict[str, Any] = {"api_key": SecretStr(CANARY), "timeout_s": 60.0, "rng": random.Random(1), "now": lambda: 1000.0}
    embedder = OpenAIEmbedder("tiny-embed", base_url=server.url, sleep=waits or Waits(), **(settings | options))
    server.at_exit.append(embedder.aclose)
    return embedder


def with_server(plan: Sequence[str], work: Callable[[FakeOpenAI], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with FakeOpenAI(plan, **options) as server:
            return await work(server)

    return asyncio.run(main())


def embed_once(
    plan: Sequence[str], texts: Sequence[str], waits: Waits | None = None, patience: Patience | None = None, **options: Any
) -> Any:
    async def work(server: FakeOpenAI) -> Any:
        return await remote(server, waits, **options).embed(texts), server.requests

    return with_server(plan, work, patience=patience)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience.of("headwater.embed.remote", monkeypatch)


def unit(texts: Sequence[str], dimension: int = 8) -> np.ndarray[Any, Any]:
    rows = np.array([vector_of(t, dimension) for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_call_speaks_the_wire_format_and_gives_unit_rows_in_input_order() -> None:
    texts = ["a long text comes first", "b", "ccc"]
    vectors, requests = embed_once(["ok"], texts)
    assert np.allclose(vectors, unit(texts), atol=1e-6)
    assert vectors.dtype == np.float32
    assert requests[0].path == "/v1/embeddings"
    assert requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert requests[0].body == {"model": "tiny-embed", "input": ["b", "ccc", texts[0]], "encoding_format": "float"}


def test_a_wanted_dimension_is_sent() -> None:
    vectors, requests = embed_once(["ok"], ["x"], dimension=5)
    assert vectors.shape == (1, 5)
    assert requests[0].body["dimensions"] == 5


@pytest.mark.parametrize("step", ["unordered", "no-index"])
def test_answers_are_put_in_order_whatever_the_server_does(step: str) -> None:
    texts = [f"text {i}" for i in range(7)]
    vectors, _ = embed_once([step], texts)
    assert np.allclose(vectors, unit(texts), atol=1e-6)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_tried_again(fault: str, patience: Patience) -> None:
    waits = Waits()
    texts = ["one", "two"]
    vectors, requests = embed_once([fault], texts, waits, patience, timeout_s=7.0, dimension=8)
    assert patience.asked == [7.0, 7.0]
    assert np.allclose(vectors, unit(texts), atol=1e-6)
    assert len(requests) == 2
    assert len(waits.seconds) == 1


def test_retry_after_is_waited_for_as_seconds_and_as_a_date() -> None:
    waits = Waits()
    embed_once(["429", "429-date"], ["x"], waits)
    assert waits.seconds == [2.0, 3.0]  # the date is 3 s after the injected clock


def test_waits_grow_with_jitter_and_stay_bounded() -> None:
    waits = Waits()
    embed_once(["500"] * 9, ["x"], waits, retries=9)
    for attempt, seconds in enumerate(waits.seconds):
        full = min(20.0, 0.5 * 2**attempt)
        assert full / 2 <= seconds <= full
    assert len({round(s, 6) for s in waits.seconds}) == 9


def test_a_retry_after_beyond_the_bound_fails_at_once_and_tells_the_caller() -> None:
    async def work(server: FakeOpenAI) -> EmbedError:
        waits = Waits()
        with pytest.raises(EmbedError) as caught:
            await remote(server, waits).embed(["x"])
        assert waits.seconds == []
        return caught.value

    assert with_server(["429"], work, retry_after="3600").retry_after_s == 3600.0


def test_retries_are_bounded_and_the_error_names_model_and_cause() -> None:
    with pytest.raises(EmbedError, match=r"openai:tiny-embed: .* answered 500: something .* \(tried 3 times\)"):
        embed_once(["500"] * 3, ["x"], retries=2)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("status:400", "answered 400"),
        ("status:401", "refused the key .* check HEADWATER_EMBEDDING_API_KEY"),
        ("status:403", "refused the key"),
        ("status:404", "knows no model 'tiny-embed'"),
        ("redirect", "redirects are not followed"),
    ],
)
def test_a_fault_that_stays_is_not_tried_again(step: str, words: str) -> None:
    async def work(server: FakeOpenAI) -> None:
        with pytest.raises(EmbedError, match=words):
            await remote(server).embed(["x"])
        assert len(server.requests) == 1

    with_server([step], work)


def test_an_empty_quota_is_not_tried_again() -> None:
    async def work(server: FakeOpenAI) -> None:
        with pytest.raises(EmbedError, match="no quota left"):
            await remote(server).embed(["x"])
        assert len(server.requests) == 1

    with_server(["429"] * 5, work, code="insufficient_quota")


@pytest.mark.parametrize(("step", "words"), [("zero", "only zeros"), ("count", "2 vectors"), ("dimension", "of 9 numbers")])
def test_nonsense_that_stays_becomes_an_error_and_never_a_vector(step: str, words: str) -> None:
    with pytest.raises(EmbedError, match=words):
        embed_once([step] * 2, ["x", "y", "z"], retries=1, dimension=None if step != "dimension" else 8)


def test_a_dimension_that_changes_later_is_refused() -> None:
    async def work(server: FakeOpenAI) -> None:
        embedder = remote(server, retries=0)
        await embedder.embed(["x"])
        assert embedder.dimension == 8
        with pytest.raises(EmbedError, match="vectors of 9 numbers where 8"):
            await embedder.embed(["y"])
        await embedder.aclose()

    with_server(["ok", "dimension"], work)


def test_a_third_of_all_calls_failing_loses_nothing_and_keeps_the_order(patience: Patience) -> None:
    seed = 20
    print("seed", seed)
    rng = random.Random(seed)
    waits = Waits()
    plan = [rng.choice(FAULTS) if rng.random() < 0.3 else rng.choice(["ok", "unordered"]) for _ in range(2000)]
    plan = ["timeout" if p == "timeout" and i % 3 == 0 else p.replace("timeout", "cut") for i, p in enumerate(plan)]

    async def work(server: FakeOpenAI) -> None:
        embedder = remote(server, waits, retries=12, dimension=8, batch_size=4)
        for call in range(200):
            texts = [f"call {call} text {i} {'x' * rng.randrange(9)}" for i in range(rng.randrange(1, 9))]
            assert np.allclose(await embedder.embed(texts), unit(texts), atol=1e-6)
        sent = plan[: len(server.requests)]
        asked = sum(p in ("429", "503", "429-date") for p in sent)
        assert asked > 5
        assert sum(s >= 2.0 for s in waits.seconds) >= asked  # each Retry-After was waited for
        assert len(waits.seconds) == sum(p in FAULTS for p in sent)  # and nothing was tried again without a fault

    with_server(plan, work, patience=patience)


def test_calls_are_paced_to_the_rate_asked_for() -> None:
    waits, now = Waits(), [100.0]

    async def work(server: FakeOpenAI) -> None:
        embedder = remote(server, waits, requests_per_s=4.0, batch_size=1, clock=lambda: now[0])
        await embedder.embed(["a", "b", "c", "d"])
        assert sorted(waits.seconds) == [0.25, 0.5, 0.75]

    with_server([], work)


def test_long_texts_are_cut_and_large_batches_split_by_bytes() -> None:
    async def work(server: FakeOpenAI) -> None:
        embedder = remote(server)
        vectors = await embedder.embed(["é" * 100_000] * 64)
        assert vectors.shape == (64, 8)
        assert len(server.requests) == 3
        assert all(len(t.encode()) == 8000 for r in server.requests for t in r.body["input"])

    with_server([], work)


def test_blank_texts_and_lone_surrogates_are_never_sent_as_they_are() -> None:
    _, requests = embed_once([], ["", " \n", "\x00", "a\ud800b", "\ufeff"])
    assert sorted(requests[0].body["input"]) == sorted(["(blank)", "(blank)", "(blank)", "a\ufffdb", "\ufeff"])


@pytest.mark.parametrize("echo", [f"Incorrect API key provided: {CANARY}", f"Bearer {CANARY} is wrong\n\x1b[31m{CANARY}"])
def test_the_key_is_in_no_error_log_or_repr(echo: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def work(server: FakeOpenAI) -> str:
        seen: list[str] = []
        for step in plan:
            embedder = remote(server, retries=0, timeout_s=0.3 if step == "timeout" else 60.0)
            seen += [repr(embedder), str(vars(embedder)), embedder.version]
            try:
                await embedder.embed(["x"])
            except EmbedError as error:
                seen += ["".join(traceback.format_exception(error)), repr(error), repr(error.__cause__)]
        return "\n".join(seen)

    plan = ["status:401", "status:400", "500", "timeout", "bad-json", "cut", "reset", "redirect"]
    seen = with_server(plan, work, message=echo) + caplog.text
    assert "refused the key (401): Incorrect API key provided: ********" in seen or "Bearer ********" in seen
    assert CANARY not in seen
    assert "\x1b" not in seen


def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIEmbedder("m", api_key=SecretStr(f"{CANARY}\nX-Other: 1"))
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1", "http://2852039166/v1", "http://0xa9fea9fe/v1", "http://[fe80::1]/v1",
        "http://[::ffff:169.254.1.1]/v1", "http://metadata.google.internal/v1", "http://METADATA./v1", "http://[fd00:ec2::254]/v1",
    ],
)  # fmt: skip
def test_link_local_and_metadata_addresses_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(ConfigError, match="link-local or cloud-metadata"):
        check_endpoint(url, allow_private=False)
    assert check_endpoint(url + "/", allow_private=True) == url


def test_a_name_that_resolves_to_a_link_local_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"models\.example"):
        refuse_private("models.example", ["10.0.0.7", "169.254.169.254"])
    refuse_private("models.example", ["10.0.0.7", "127.0.0.1", "::1", "192.168.1.4"])


@pytest.mark.parametrize(
    "url", ["localhost:11434", "ftp://host/v1", "https://", "https://u:p@host/v1", "http://[::1", "http://h:x/"]
)
def test_what_is_not_a_plain_http_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.base_url"):
        check_endpoint(url, allow_private=False)


def test_the_key_comes_from_settings_or_the_well_known_variable_which_goes_to_openai_only(monkeypatch: Any) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        load("openai:m", EmbeddingSettings())
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    assert isinstance(load("openai:m", EmbeddingSettings()), OpenAIEmbedder)

    async def work(server: FakeOpenAI) -> None:
        embedder = load("openai:m", EmbeddingSettings(base_url=server.url))
        await embedder.embed(["x"])
        await embedder.aclose()
        assert "authorization" not in server.requests[0].headers

    with_server([], work)


def test_the_cache_saves_calls_across_restarts_of_a_remote_model(tmp_path: Path) -> None:
    async def work(server: FakeOpenAI) -> None:
        for run in range(2):
            with VectorCache(tmp_path / "v.db") as cache:
                embedder = load("openai:m", EmbeddingSettings(base_url=server.url), cache=cache)
                assert np.allclose(await embedder.embed(["x", "y", "x"]), unit(["x", "y", "x"]), atol=1e-6)
                assert embedder.dimension == 8
                await embedder.aclose()
            assert len(server.requests) == 1, run

    with_server([], work)


class Switched(HashEmbedder):
    """A remote model that can be switched off."""

    name = "far"
    local = False
    up = True
    calls = 0
    retry_after_s: float | None = None

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Any:
        self.calls += 1
        if not self.up:
            raise EmbedError("far is away", retry_after_s=self.retry_after_s)
        return await super().embed_batch(texts, kind)


def test_while_a_provider_is_down_a_local_model_serves_under_its_own_name() -> None:
    async def main() -> None:
        now = [0.0]
        far = Switched(dimension=16)
        fallback = Fallback(far, HashEmbedder(), clock=lambda: now[0])
        assert fallback.names == ("far", "hash")
        name, vectors = await fallback.embed(["x"])
        assert (name, vectors.shape, fallback.state) == ("far", (1, 16), "ok")
        far.up = False
        name, vectors = await fallback.embed(["x"])
        assert (name, vectors.shape, fallback.state) == ("hash", (1, 256), "down")
        assert fallback.reason == "far is away"
        calls = far.calls
        await fallback.embed(["x"], "query")
        with pytest.raises(EmbedError, match="far is down") as caught:
            await fallback.embed_as("far", ["x"])
        assert caught.value.retry_after_s == 5.0
        assert far.calls == calls  # no probe before its time
        assert (await fallback.embed_as("hash", ["x"])).shape == (1, 256)
        with pytest.raises(NotFoundError):
            await fallback.embed_as("other", ["x"])

    asyncio.run(main())


def test_probes_come_ever_later_and_recovery_is_told_once() -> None:
    async def main() -> None:
        now = [0.0]
        far = Switched(dimension=16)
        far.up = False
        fallback = Fallback(far, HashEmbedder(), clock=lambda: now[0], last_probe_s=40.0)
        probes: list[float] = []
        for second in range(200):
            now[0], before = float(second), far.calls
            assert (await fallback.embed(["x"]))[0] == "hash"
            if far.calls > before:
                probes.append(second)
        assert probes == [0, 5, 15, 35, 75, 115, 155, 195]
        assert not fallback.recovered()
        far.up, now[0] = True, 240.0
        assert (await fallback.embed(["x"]))[0] == "far"
        assert fallback.state == "ok"
        assert fallback.recovered()
        assert not fallback.recovered()
        far.up, far.retry_after_s = False, 90.0
        await fallback.embed(["x"])
        now[0] += 89.0
        calls = far.calls
        await fallback.embed(["x"])
        assert far.calls == calls  # a Retry-After longer than the probe's wait is honoured

    asyncio.run(main())


def test_only_one_call_probes_and_a_slow_provider_counts_as_down() -> None:
    class Slow(Switched):
        async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Any:
            self.calls += 1
            await asyncio.Event().wait()

    async def main() -> None:
        now = [0.0]
        far = Slow(dimension=16)
        fallback = Fallback(far, HashEmbedder(), clock=lambda: now[0], patience_s={"query": 0.05, "passage": 0.05})
        assert (await fallback.embed(["x"]))[0] == "hash"
        now[0], calls = 10.0, far.calls
        names = {name for name, _ in await asyncio.gather(*(fallback.embed(["x"]) for _ in range(20)))}
        assert names == {"hash"}
        assert far.calls == calls + 1

    asyncio.run(main())


def test_a_fallback_must_be_another_and_a_local_model() -> None:
    far: Embedder = Switched(dimension=16)
    with pytest.raises(ConfigError, match="another, local model"):
        Fallback(HashEmbedder(), far)
    with pytest.raises(ConfigError, match="another, local model"):
        Fallback(HashEmbedder(), HashEmbedder())
