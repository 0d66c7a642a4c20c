"""Which provider, address, key, prefix and library a name and the settings come to; and what `doctor` says of them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from fake_providers import CANARY, SORTED, TEXTS, FakeProvider, remote, unit, with_server
from headwater.cli.doctor import examine
from headwater.config import EmbeddingSettings, Settings
from headwater.embed import load
from headwater.embed.fault import retry_after_s, said_by
from headwater.embed.lookup import LIBRARIES, NAMES, REMOTE
from headwater.embed.ollama import host_url
from headwater.embed.prefixes import prefixes
from headwater.embed.remote import RemoteEmbedder
from headwater.errors import ConfigError, EmbedError


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
