"""Every remote provider against a server that speaks its recorded wire format (tests/fake_providers.py), faults included.

None of these tests asks a real provider: what they show is that requests and answers are those the documents describe.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from fake_openai import vector_of
from fake_providers import FAULTS, FakeProvider, Format
from headwater.cli.doctor import examine
from headwater.config import EmbeddingSettings, Settings
from headwater.embed import load
from headwater.embed.fault import retry_after_s, said_by
from headwater.embed.lookup import LIBRARIES, NAMES, REMOTE
from headwater.embed.ollama import host_url
from headwater.embed.prefixes import prefixes
from headwater.embed.remote import RemoteEmbedder
from headwater.errors import ConfigError, EmbedError

CANARY = "key-canary-Yx93kd"
FORMATS: tuple[Format, ...] = ("azure", "cohere", "huggingface", "ollama", "llamafile", "old-llamafile", "http")
TEXTS = ["a long text comes first", "b", "ccc"]
SORTED = ["b", "ccc", "a long text comes first"]  # as they are sent: by length
TEMPLATE = {"request": '{"input": "$texts", "options": {"task": "$kind", "name": "$model"}}', "reply": "result[].values"}


class Waits:
    """A sleep that only notes how long it was asked to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def remote(server: FakeProvider, waits: Waits | None = None, **options: Any) -> RemoteEmbedder:
    provider = server.format.removeprefix("old-")
    given: dict[str, Any] = {"base_url": server.root, "api_key": SecretStr(CANARY), "timeout_s": 5.0, "sleep": waits or Waits()}
    given |= {"rng": random.Random(1), "now": lambda: 1000.0} | (TEMPLATE if provider == "http" else {}) | options
    made = getattr(importlib.import_module(f"headwater.embed.{provider}"), REMOTE[provider])("tiny/embed", **given)
    assert isinstance(made, RemoteEmbedder)
    server.at_exit.append(made.aclose)
    return made


def with_server(form: Format, work: Callable[[FakeProvider], Awaitable[Any]], plan: Sequence[str] = (), **options: Any) -> Any:
    async def main() -> Any:
        async with FakeProvider(plan, format=form, **options) as server:
            return await work(server)

    return asyncio.run(main())


def unit(texts: Sequence[str], dimension: int = 8) -> np.ndarray[Any, Any]:
    rows = np.array([vector_of(t, dimension) for t in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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
def test_a_fault_that_passes_is_tried_again_in_every_recorded_format(form: Format, fault: str) -> None:
    async def work(server: FakeProvider) -> None:
        waits = Waits()
        limit = 0.3 if fault == "timeout" else 5.0
        vectors = await remote(server, waits, timeout_s=limit, dimension=8).embed(["one", "three"])
        assert np.allclose(vectors, unit(["one", "three"]), atol=1e-6)
        assert len(waits.seconds) == 1
        assert waits.seconds[0] == {"429": 2.0, "503": 2.0, "429-date": 3.0}.get(fault, waits.seconds[0])

    with_server(form, work, [fault])


@pytest.mark.parametrize("form", FORMATS)
def test_200_calls_with_30_percent_faults_lose_nothing_keep_order_and_their_budget_of_retries(form: Format) -> None:
    seed = 30
    print("seed", seed)
    rng = random.Random(seed)
    names = [fault for fault in FAULTS if fault != "timeout"] + ["unordered" if form in ("azure", "llamafile") else "ok"]
    plan = [rng.choice(names) if rng.random() < 0.3 else "ok" for _ in range(3000)]
    plan[20] = "timeout"

    async def work(server: FakeProvider) -> None:
        waits, retries = Waits(), 12
        embedder = remote(server, waits, retries=retries, dimension=8, batch_size=4, timeout_s=0.4)
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
        assert faults <= len(waits.seconds) <= faults * 1.1  # nothing is tried again without a fault, or a machine that stalls
        assert faults > 0.2 * len(sent)
        asked = sum(step in ("429", "503", "429-date") for step in sent)
        assert sum(seconds >= 2.0 for seconds in waits.seconds) >= asked  # each Retry-After was waited for

    with_server(form, work, plan)


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
        for _ in range(8):
            embedder = remote(server, retries=0, timeout_s=0.3)
            seen += [repr(embedder), str(vars(embedder)), embedder.version]
            try:
                await embedder.embed(["x"])
            except EmbedError as error:
                seen += ["".join(traceback.format_exception(error)), repr(error.__cause__)]
        return "\n".join(seen)

    plan = ["status:401", "status:400", "500", "timeout", "bad-json", "cut", "reset", "redirect"]
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


# ---------------------------------------------------------------- addresses and keys
@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai:m", "OPENAI_API_KEY"),
        ("cohere:m", "CO_API_KEY"),
        ("huggingface:m", "HF_TOKEN"),
        ("azure:m", "AZURE_OPENAI_API_KEY"),
    ],
)
def test_a_hosted_provider_wants_a_key_and_its_own_variable_goes_to_its_own_host_only(name: str, variable: str) -> None:
    home = EmbeddingSettings(base_url="https://mine.openai.azure.com" if name.startswith("azure") else None)
    with pytest.raises(ConfigError, match=f"needs a key: set HEADWATER_EMBEDDING_API_KEY or {variable}"):
        load(name, home, env={})
    kept = load(name, home, env={variable: CANARY})
    assert isinstance(kept, RemoteEmbedder)
    assert kept._key is not None
    for elsewhere in ("http://localhost:8000/v1", "https://api.openai.com.evil.example", "http://api.openai.com/v1"):
        made = load(name, EmbeddingSettings(base_url=elsewhere), env={variable: CANARY})
        assert isinstance(made, RemoteEmbedder)
        assert made._key is None


def test_a_key_and_an_address_meant_for_one_provider_reach_no_other() -> None:
    settings = EmbeddingSettings(model="cohere:c", base_url="http://localhost:1/v1", api_key=SecretStr(CANARY))
    made = load("ollama:m", settings, env={})
    assert isinstance(made, RemoteEmbedder)
    assert (made._key, made.url) == (None, "http://localhost:11434")
    own = load("cohere:other", settings, env={})
    assert isinstance(own, RemoteEmbedder)
    assert (own._key, own.url) == (SecretStr(CANARY), "http://localhost:1/v1")


def test_azure_and_http_say_that_they_need_an_address() -> None:
    for name in ("azure:m", "http:m"):
        with pytest.raises(ConfigError, match="To mend it: export HEADWATER_EMBEDDING_BASE_URL=https://"):
            load(name, EmbeddingSettings(), env={})
    made = load(
        "azure:m",
        EmbeddingSettings(),
        env={"AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com/", "AZURE_OPENAI_API_KEY": "k"},
    )
    assert isinstance(made, RemoteEmbedder)
    assert made.url == "https://x.openai.azure.com"


@pytest.mark.parametrize("name", [f"{provider}:m" for provider in REMOTE])
@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "http://u:p@host/v1"])
def test_no_provider_may_be_pointed_at_a_metadata_address_or_hold_a_key_in_its_address(name: str, url: str) -> None:
    with pytest.raises(ConfigError, match=r"embedding\.base_url"):
        load(name, EmbeddingSettings(base_url=url, api_key=SecretStr("k")), env={})


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, {}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, {}, 9.0),
        ({}, {"error": "Model m is currently loading", "estimated_time": 20.0}, 20.0),
        ({}, {"error": "x", "estimated_time": "soon"}, None),
        ({"retry-after": "nonsense"}, [], None),
    ],
)
def test_a_wait_is_read_from_each_recorded_place(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    header = retry_after_s(headers, 1000.0)
    assert (said_by(json.dumps(body).encode()).wait_s if header is None else header) == seconds


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", None), ("0.0.0.0", "http://127.0.0.1:11434"), ("0.0.0.0:9", "http://127.0.0.1:9"), (":9", "http://localhost:9"),
        ("gpu", "http://gpu:11434"), ("https://gpu.example", "https://gpu.example:443"), ("http://gpu:9/", "http://gpu:9"),
        ("[::]:9", "http://[::1]:9"), ("[fe80::2]", "http://[fe80::2]:11434"),
    ],
)  # fmt: skip
def test_ollama_host_is_read_in_all_its_forms(host: str, url: str | None) -> None:
    assert host_url(host) == url


def test_the_azure_v1_address_and_the_hugging_face_router_have_their_recorded_paths() -> None:
    azure = load(
        "azure:dep", EmbeddingSettings(base_url="https://x.openai.azure.com/openai/v1/", api_key=SecretStr("k")), env={}
    )
    router = load("huggingface:BAAI/bge-m3", EmbeddingSettings(api_key=SecretStr("k")), env={})
    endpoint = load(
        "huggingface:m", EmbeddingSettings(base_url="https://a.eu.endpoints.huggingface.cloud", api_key=SecretStr("k")), env={}
    )
    for made, path in ((azure, "/embeddings"), (router, "/BAAI/bge-m3/pipeline/feature-extraction"), (endpoint, "/")):
        assert isinstance(made, RemoteEmbedder)
        assert made.request(["x"], "query").path == path


# ---------------------------------------------------------------- http:NAME
def test_the_generic_provider_takes_one_text_a_request_and_a_header_of_its_own() -> None:
    async def work(server: FakeProvider) -> None:
        request, reply = '{"input": "$text", "as": ["$kind"]}', "result.0.values"
        embedder = remote(server, request=request, reply=reply, key_header="X-Api-Key: $key")
        assert np.allclose(await embedder.embed(TEXTS), unit(TEXTS), atol=1e-6)
        assert [r.body for r in server.requests] == [{"input": t, "as": ["passage"]} for t in SORTED]
        assert server.requests[0].headers["x-api-key"] == CANARY

    with_server("http", work)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"http_request": "{"}, "is not JSON"),
        ({"http_request": '{"input": "text"}'}, "must hold"),
        ({"http_reply": "a[b]"}, "not a path"),
        ({"http_key_header": "Bearer"}, "must look like"),
        ({"http_key_header": "A: $key\r\nB: c"}, "must look like"),
    ],
)
def test_a_template_that_cannot_work_is_refused_when_it_is_read(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load("http:m", EmbeddingSettings(base_url="http://localhost:1/x", **options), env={})  # type: ignore[arg-type]


def test_a_reply_without_what_the_path_names_says_so() -> None:
    async def work(server: FakeProvider) -> None:
        with pytest.raises(EmbedError, match=r"nothing at 'vectors' of embedding\.http_reply"):
            await remote(server, retries=0, reply="result[].vectors").embed(["x"])

    with_server("http", work)


# ---------------------------------------------------------------- prefixes
@pytest.mark.parametrize(
    ("model", "query", "passage"),
    [
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", "Instruct: ", ""),
        ("nomic-embed-text:latest", "search_query: ", "search_document: "),
        ("BAAI/bge-base-en-v1.5", "Represent this sentence", ""),
        ("bge-m3", "", ""),
        ("snowflake-arctic-embed2", "query: ", ""),
        ("all-minilm", "", ""),
    ],
)
def test_a_model_gets_the_prefixes_of_its_family(model: str, query: str, passage: str) -> None:
    found = prefixes(model)
    assert found["query"].startswith(query)
    assert bool(found["query"]) == bool(query)
    assert found["passage"] == passage


def test_prefixes_are_sent_can_be_set_and_make_another_version() -> None:
    async def work(server: FakeProvider) -> None:
        versions = set()
        for query in (None, "", "ask: "):
            settings = EmbeddingSettings(model="ollama:e5-small", base_url=server.root, query_prefix=query)
            embedder = load("ollama:e5-small", settings, env={})
            await embedder.embed(["x"], "query")
            await embedder.embed(["x"], "passage")
            await embedder.aclose()
            versions.add(embedder.version)
        assert [r.body["input"][0] for r in server.requests] == [
            "query: x", "passage: x", "x", "passage: x", "ask: x", "passage: x",
        ]  # fmt: skip
        assert len(versions) == 3

    with_server("ollama", work)


# ---------------------------------------------------------------- optional libraries, plugins
@pytest.mark.parametrize("provider", LIBRARIES)
def test_a_missing_library_says_the_command_that_installs_it(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, provider.replace("-", "_"), None)
    with pytest.raises(EmbedError) as caught:
        asyncio.run(load(f"{provider}:m", EmbeddingSettings()).embed(["x"]))
    assert str(caught.value).endswith(f"To mend it: pip install 'headwater[{provider}]'")


def imitation(folder: Path, module: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)


def test_fastembed_is_called_as_its_recorded_interface_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "class TextEmbedding:\n"
        "    def __init__(self, model_name, cache_dir=None, threads=None):\n"
        "        if 'bge' not in model_name:\n"
        "            raise ValueError(f'Model {model_name} is not supported')\n"
        "    def embed(self, documents, batch_size=256):\n"
        "        yield from ([len(d), 1.0] for d in documents)\n"
        "    def query_embed(self, query):\n"
        "        yield from ([1.0, -len(q)] for q in query)\n"
        "    passage_embed = embed\n"
    )
    imitation(tmp_path, "fastembed", source, monkeypatch)

    async def main() -> None:
        plain = load("fastembed:bge-m3", EmbeddingSettings())
        rows = await plain.embed(["aaaa", "bb"])
        assert np.allclose(rows[:, 0] / rows[:, 1], [4.0, 2.0])
        assert (await plain.embed(["aaaa"], "query"))[0, 1] < 0
        prefixed = load("fastembed:BAAI/bge-small-en-v1.5", EmbeddingSettings())
        assert (await prefixed.embed(["aaaa"], "query"))[0, 1] > 0  # through embed, with the prefix before it
        with pytest.raises(EmbedError, match="fastembed:x: ValueError: Model x is not supported"):
            await load("fastembed:x", EmbeddingSettings()).embed(["a"])

    asyncio.run(main())


def test_sentence_transformers_gets_its_own_prompts_before_those_of_the_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "class SentenceTransformer:\n"
        "    def __init__(self, model_name_or_path, cache_folder=None):\n"
        "        self.prompts = {'query': 'Q: ', 'document': ''}\n"
        "    def encode(self, inputs, prompt=None, batch_size=32, show_progress_bar=None):\n"
        "        return [[len((prompt or '') + t), 1.0] for t in inputs]\n"
    )
    imitation(tmp_path, "sentence_transformers", source, monkeypatch)

    async def lengths(settings: EmbeddingSettings) -> list[float]:
        embedder = load("sentence-transformers:e5-small", settings)
        rows = [(await embedder.embed(["aaaa"], kind))[0] for kind in ("query", "passage")]
        return [float(row[0] / row[1]) for row in rows]

    assert np.allclose(asyncio.run(lengths(EmbeddingSettings())), [7.0, 13.0])  # "Q: ", and "passage: " of the family
    assert np.allclose(asyncio.run(lengths(EmbeddingSettings(query_prefix="query: ", passage_prefix="p "))), [11.0, 6.0])


def test_a_plugin_package_gets_the_name_asked_for_the_settings_and_the_kind_of_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vowels.py").write_text(
        "from headwater.embed import Embedder\n"
        "class Vowels(Embedder):\n"
        "    def __init__(self, settings):\n"
        "        super().__init__()\n"
        "        self.name, self.batch_size = settings.model, settings.batch_size\n"
        "    async def embed_batch(self, texts, kind):\n"
        "        return [[t.count(c) + 0.5 for c in 'aeiou'] + [2 if kind == 'query' else 1] for t in texts]\n"
    )
    info = tmp_path / "vowels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vowels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headwater.embedders]\nvowels = vowels:Vowels\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    embedder = load("vowels:large", EmbeddingSettings(model="openai:m", api_key=SecretStr(CANARY), batch_size=3))
    assert (embedder.name, embedder.batch_size) == ("vowels:large", 3)
    passage, query = (asyncio.run(embedder.embed(["aeiou a"], kind)) for kind in ("passage", "query"))
    assert passage.shape == (1, 6)
    assert not np.allclose(passage, query)
    with pytest.raises(ConfigError, match=r"There are .*, vowels"):
        load("no-such-model", EmbeddingSettings())


def test_every_provider_is_named_in_the_list_of_models() -> None:
    assert {f"{provider}:NAME" for provider in (*REMOTE, *LIBRARIES)} <= set(NAMES)


# ---------------------------------------------------------------- doctor
def _doctor(embedding: EmbeddingSettings) -> tuple[bool, str, str]:
    found = {f.check: f for f in examine(Settings(embedding=embedding, data_dir="/nonexistent/headwater"))}["embedding"]
    return found.ok, found.seen, found.mend


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("ollama:nomic-embed-text", "ollama serve"),
        ("cohere:embed-v4.0", "export HEADWATER_EMBEDDING_API_KEY=YOUR_KEY"),
        ("azure:mine", "export HEADWATER_EMBEDDING_BASE_URL=https://RESOURCE.openai.azure.com"),
        ("fastembed:BAAI/bge-small-en-v1.5", "pip install 'headwater[fastembed]'"),
        ("no-such-model", "export HEADWATER_EMBEDDING_MODEL=bge-small"),
    ],
)
def test_doctor_ends_with_the_command_that_mends_the_provider(
    model: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "CO_API_KEY", "COHERE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # the discard port: nothing listens
    monkeypatch.setitem(sys.modules, "fastembed", None)
    ok, _, mend = _doctor(EmbeddingSettings(model=model))
    assert (ok, mend) == (False, command)


def test_doctor_says_that_a_provider_answers_and_asks_it_once_where_it_does_not() -> None:
    async def work(server: FakeProvider) -> None:
        settings = EmbeddingSettings(model="ollama:tiny", base_url=server.root, fallback="hash")
        ok, seen, _ = await asyncio.to_thread(_doctor, settings)
        assert ok
        assert seen.startswith("ollama:tiny: 8 dimensions; answered in ")
        assert "; hash: 256 dimensions; " in seen
        ok, seen, mend = await asyncio.to_thread(_doctor, settings)
        assert (ok, mend) == (False, "ollama pull tiny")
        assert len(server.requests) == 2

    with_server("ollama", work, ["ok", "status:404"])
