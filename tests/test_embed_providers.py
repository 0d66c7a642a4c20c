"""Every remote provider against a server that speaks its recorded wire format (tests/fake_providers.py), faults included.

None of these tests asks a real provider: what they show is that requests and answers are those the documents describe.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from typing import Any

import numpy as np
import pytest

from fake_openai import Patience
from fake_providers import CANARY, FAULTS, SORTED, TEXTS, FakeProvider, Format, Waits, remote, unit, with_server
from headwater.config import EmbeddingSettings
from headwater.embed import load
from headwater.errors import EmbedError

FORMATS: tuple[Format, ...] = ("azure", "cohere", "huggingface", "ollama", "llamafile", "old-llamafile", "http")

EXPECTED: dict[Format, tuple[str, dict[str, Any]]] = {
    "azure": (
        "/openai/deployments/tiny%2Fembed/embeddings?api-version=2024-10-21",
        {"input": SORTED, "encoding_format": "float", "dimensions": 8},
    ),
    "cohere": (
        "/embed",
        {
            "model": "tiny/embed",
            "texts": SORTED,
            "input_type": "search_query",
            "embedding_types": ["float"],
            "truncate": "END",
            "output_dimension": 8,
        },
    ),
    "huggingface": ("/embed", {"inputs": SORTED, "normalize": True, "truncate": True, "dimensions": 8}),
    "ollama": ("/api/embed", {"model": "tiny/embed", "input": SORTED, "truncate": True, "dimensions": 8}),
    "llamafile": (
        "/v1/embeddings",
        {"model": "tiny/embed", "input": SORTED, "encoding_format": "float", "dimensions": 8},
    ),
    "http": ("/", {"input": SORTED, "options": {"task": "query", "name": "tiny/embed"}}),
}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    return Patience.of("headwater.embed.remote", monkeypatch)


@pytest.mark.parametrize("form", EXPECTED)
def test_a_call_is_as_the_recorded_format_of_the_provider_has_it(form: Format) -> None:
    async def work(server: FakeProvider) -> None:
        vectors = await remote(server, dimension=8).embed(TEXTS, "query")
        assert np.allclose(vectors, unit(TEXTS), atol=1e-6)
        assert (server.requests[0].path, server.requests[0].body) == EXPECTED[form]
        header = "api-key" if form == "azure" else "authorization"
        assert server.requests[0].headers[header] == (CANARY if form == "azure" else f"Bearer {CANARY}")
        assert len(server.requests) == 1

    with_server(form, work)


def test_a_llamafile_of_before_the_openai_route_is_asked_text_by_text_in_its_recorded_format() -> None:
    async def work(server: FakeProvider) -> None:
        embedder = remote(server)
        for _ in range(2):
            assert np.allclose(await embedder.embed(TEXTS), unit(TEXTS), atol=1e-6)
        assert [r.path for r in server.requests] == ["/v1/embeddings", *["/embedding"] * 6]
        assert server.requests[1].body == {"content": "b"}

    with_server("old-llamafile", work)


def test_cohere_is_told_passages_from_queries_and_sent_at_most_96_texts_in_its_recorded_format() -> None:
    async def work(server: FakeProvider) -> None:
        texts = [f"text {i}" for i in range(200)]
        assert np.allclose(await remote(server, batch_size=500).embed(texts), unit(texts), atol=1e-6)
        assert sorted(len(r.body["texts"]) for r in server.requests) == [8, 96, 96]
        assert {r.body["input_type"] for r in server.requests} == {"search_document"}

    with_server("cohere", work)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_tried_again_in_every_recorded_format(form: Format, fault: str, patience: Patience) -> None:
    async def work(server: FakeProvider) -> None:
        waits = Waits()
        vectors = await remote(server, waits, dimension=8).embed(["one", "three"])
        assert np.allclose(vectors, unit(["one", "three"]), atol=1e-6)
        assert len(waits.seconds) == 1
        assert waits.seconds[0] == {"429": 2.0, "503": 2.0, "429-date": 3.0}.get(fault, waits.seconds[0])

    with_server(form, work, [fault], patience=patience)


@pytest.mark.parametrize("form", FORMATS)
def test_200_calls_with_30_percent_faults_lose_nothing_keep_order_and_their_budget_of_retries(
    form: Format, patience: Patience
) -> None:
    seed = 30
    print("seed", seed)
    rng = random.Random(seed)
    names = [fault for fault in FAULTS if fault != "timeout"] + ["unordered" if form in ("azure", "llamafile") else "ok"]
    plan = [rng.choice(names) if rng.random() < 0.3 else "ok" for _ in range(3000)]
    plan[20] = "timeout"

    async def work(server: FakeProvider) -> None:
        waits, retries = Waits(), 12
        embedder = remote(server, waits, retries=retries, dimension=8, batch_size=4)
        for call in range(200):
            texts = [
                f"call {call} text {i} {'x' * rng.randrange(9)}"
                for i in range(rng.randrange(1, 3 if form == "old-llamafile" else 6))
            ]
            before = len(server.requests)
            assert np.allclose(await embedder.embed(texts), unit(texts), atol=1e-6)
            each = len(texts) + 1 if form == "old-llamafile" else -(-len(texts) // 4)
            assert len(server.requests) - before <= each * (retries + 1)
        sent = plan[: len(server.requests)]
        faults = sum(step in FAULTS for step in sent)
        assert len(waits.seconds) == faults  # nothing is tried again without a fault
        assert faults > 0.2 * len(sent)
        asked = sum(step in ("429", "503", "429-date") for step in sent)
        assert sum(seconds >= 2.0 for seconds in waits.seconds) >= asked  # each Retry-After was waited for

    with_server(form, work, plan, patience=patience)


@pytest.mark.parametrize("form", FORMATS)
def test_a_server_that_stays_down_is_asked_a_bounded_number_of_times(form: Format) -> None:
    async def work(server: FakeProvider) -> None:
        with pytest.raises(EmbedError, match=r"answered 500: .* \(tried 3 times\)"):
            await remote(server, retries=2).embed(["x"])
        assert len(server.requests) == 3

    with_server(form, work, ["500"] * 9)


@pytest.mark.parametrize("form", FORMATS)
def test_the_key_is_in_no_error_log_or_repr_of_any_provider(form: Format, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def work(server: FakeProvider) -> str:
        seen: list[str] = []
        for fault in plan:
            embedder = remote(server, retries=0, timeout_s=0.3 if fault == "timeout" else 60.0)
            seen += [repr(embedder), str(vars(embedder)), embedder.version]
            try:
                await embedder.embed(["x"])
            except EmbedError as error:
                seen += ["".join(traceback.format_exception(error)), repr(error.__cause__)]
        return "\n".join(seen)

    plan = ["status:401", "status:400", "500", "bad-json", "cut", "reset", "redirect", "timeout"]
    seen = with_server(form, work, plan, message=f"Bearer {CANARY} is wrong") + caplog.text
    assert "refused the key (401): Bearer ******** is wrong" in seen
    assert "redirects are not followed" in seen
    assert CANARY not in seen


@pytest.mark.parametrize("form", ["huggingface", "ollama"])
def test_a_batch_the_server_finds_too_large_is_halved_and_the_size_remembered(form: Format) -> None:
    async def work(server: FakeProvider) -> None:
        embedder, texts = remote(server, batch_size=32), [f"text {i}" for i in range(32)]
        assert np.allclose(await embedder.embed(texts), unit(texts), atol=1e-6)
        assert len(server.requests) == 7  # of 32, 16, 8, 8, 16, 8, 8
        assert np.allclose(await embedder.embed(texts), unit(texts), atol=1e-6)
        assert [len(server.texts(r.body)) for r in server.requests[7:]] == [8] * 4

    with_server(form, work, limit=8)


def test_a_text_beyond_the_servers_window_is_shown_in_part_and_the_others_whole() -> None:
    async def work(server: FakeProvider) -> None:
        long = "word " * 1000
        texts = ["short", long, "other"]
        vectors = await remote(server).embed(texts)
        assert np.allclose(vectors, unit(["short", long[:625], "other"]), atol=1e-6)

    with_server("llamafile", work, window=1000)


def test_a_server_that_finds_everything_too_large_is_given_up_on() -> None:
    async def work(server: FakeProvider) -> None:
        with pytest.raises(EmbedError, match="physical batch size"):
            await remote(server).embed(["word " * 1000])
        assert len(server.requests) < 10

    with_server("llamafile", work, window=3)


@pytest.mark.parametrize(
    ("form", "step", "command"),
    [
        ("ollama", "status:404", "ollama pull tiny/embed"),
        ("llamafile", "status:501", "./tiny/embed.llamafile --server --nobrowser --embedding"),
        ("cohere", "status:401", "export HEADWATER_EMBEDDING_API_KEY=YOUR_KEY"),
    ],
)
def test_a_refusal_that_a_command_mends_ends_with_that_command(form: Format, step: str, command: str) -> None:
    async def work(server: FakeProvider) -> None:
        with pytest.raises(EmbedError) as caught:
            await remote(server, retries=0).embed(["x"])
        assert str(caught.value).endswith(f". To mend it: {command}")

    with_server(form, work, [step])


def test_a_server_that_is_not_there_says_how_to_start_it() -> None:
    async def main() -> None:
        embedder = load("ollama:m", EmbeddingSettings(base_url="http://127.0.0.1:9", retries=0), env={})
        with pytest.raises(EmbedError, match=r"cannot talk to .* To mend it: ollama serve$"):
            await embedder.embed(["x"])
        await embedder.aclose()

    asyncio.run(main())
