"""The vector cache: what it keeps, what goes first, and what becomes of a damaged one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders import Scripted, run, spelled, unit
from headwater.config import EmbeddingSettings
from headwater.embed import Cached, VectorCache, load
from headwater.embed.hash import HashEmbedder
from headwater.embed.onnx import OnnxEmbedder
from headwater.errors import EmbedError


def rows_of(n: int, dimension: int = 8, seed: int = 0) -> Any:
    return unit(np.random.default_rng(seed).normal(size=(n, dimension))).astype(np.float32)


def test_the_cache_gives_back_the_very_vectors_and_survives_a_restart(tmp_path: Path) -> None:
    rows, texts = rows_of(3), ["a", "b", "c\ud800"]
    with VectorCache(tmp_path / "sub" / "v.db") as cache:
        cache.put_many("m", "passage", texts, rows)
    with VectorCache(tmp_path / "sub" / "v.db") as cache:
        found = cache.get_many("m", "passage", ["c\ud800", "zzz", "a"])
        assert found.keys() == {0, 2}
        assert np.array_equal(found[0], rows[2])
        assert np.array_equal(found[2], rows[0])
        assert cache.get_many("m", "query", texts) == {}
        assert cache.get_many("other", "passage", texts) == {}


def test_the_least_recently_used_go_when_the_cache_is_full(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v.db", max_bytes=20 * 192) as cache:  # 20 rows of 8 floats
        for i in range(19):
            cache.put_many("m", "passage", [f"t{i}"], rows_of(1, seed=i))
        assert len(cache.get_many("m", "passage", ["t0", "t1"])) == 2  # used again: they stay
        cache.put_many("m", "passage", ["x", "y"], rows_of(2, seed=99))
        kept = cache.get_many("m", "passage", [f"t{i}" for i in range(19)])
        assert {0, 1} <= kept.keys()
        assert 2 not in kept
        assert len(cache) == 18
        assert cache.size_bytes <= 20 * 192


def test_purged_texts_are_forgotten_for_every_model(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v.db") as cache:
        for model in ("m", "n"):
            cache.put_many(model, "passage", ["secret", "open"], rows_of(2))
        cache.forget(["secret"])
        assert len(cache) == 2
        assert cache.get_many("n", "passage", ["secret"]) == {}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "middle", "directory", "another schema"])
def test_a_damaged_cache_is_begun_anew_and_never_stops_work(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "v.db"
    with VectorCache(path) as cache:
        cache.put_many("m", "passage", [f"t{i}" for i in range(400)], rows_of(400))
    size = path.stat().st_size
    if damage == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif damage == "truncated":
        with path.open("r+b") as file:
            file.truncate(size // 2)
    elif damage == "middle":
        with path.open("r+b") as file:
            for at in range(4096, size - 4096, 4096):
                file.seek(at)
                file.write(b"\xff" * 64)
    elif damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        import apsw

        db = apsw.Connection(str(path))
        db.execute("PRAGMA user_version=999").fetchall()
        db.close()
    with VectorCache(path) as cache:
        cached = Cached(HashEmbedder(dimension=8), cache)
        first = run(cached.embed(["t1", "t2"]))
        assert np.array_equal(run(cached.embed(["t1", "t2"])), first)
        assert cached.hits == (0 if damage == "directory" else 2)
        assert cache.rebuilt == (1 if damage in ("garbage", "truncated", "middle") else 0)


def test_a_cached_embedder_asks_its_model_once_for_each_text(tmp_path: Path) -> None:
    scripted = Scripted(spelled)
    with VectorCache(tmp_path / "v.db") as cache:
        cached = Cached(scripted, cache)
        first = run(cached.embed(["a", "b", "a"]))
        again = run(cached.embed(["b", "c", "a"]))
        assert np.array_equal(first[[1, 0]], again[[0, 2]])
        assert (cached.hits, cached.misses) == (2, 4)
        assert sorted(t for b in scripted.batches for t in b) == ["a", "b", "c"]
        assert run(cached.embed([])).shape == (0, 17)


def test_what_was_embedded_before_a_failure_is_not_embedded_again(tmp_path: Path) -> None:
    up = [True]

    def answer(texts: Sequence[str]) -> Any:
        if not up[0]:
            raise EmbedError("away")
        up[0] = "600" not in texts
        return spelled(texts)

    scripted = Scripted(answer)
    with VectorCache(tmp_path / "v.db") as cache:
        cached = Cached(scripted, cache)
        with pytest.raises(EmbedError, match="away"):
            run(cached.embed([str(i) for i in range(700)]))
        up[0] = True
        scripted.batches.clear()
        assert run(cached.embed([str(i) for i in range(512)])).shape == (512, 17)
        assert scripted.batches == []


def test_vectors_kept_from_a_model_that_changed_its_length_are_made_anew(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v.db") as cache:
        run(Cached(Scripted(spelled), cache).embed(["a", "b"]))
        changed = Cached(Scripted(lambda texts: [[1.0, 2.0, len(t)] for t in texts]), cache)
        assert run(changed.embed(["a", "c"])).shape == (2, 3)


def test_the_cache_may_be_used_from_many_threads(tmp_path: Path) -> None:
    failures: list[str] = []
    with VectorCache(tmp_path / "v.db") as cache:

        def work(worker: int) -> None:
            for i in range(30):
                text, rows = f"{(worker + i) % 40}", rows_of(1, seed=(worker + i) % 40)
                cache.put_many("m", "query", [text], rows)
                found = cache.get_many("m", "query", [text])
                if 0 not in found or not np.array_equal(found[0], rows[0]):
                    failures.append(text)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert cache.failures == 0


def test_load_puts_the_cache_before_a_model_unless_it_is_off(tmp_path: Path) -> None:
    with VectorCache(tmp_path / "v.db") as cache:
        assert isinstance(load("bge-small", EmbeddingSettings(), cache=cache), Cached)
        assert isinstance(load("bge-small", EmbeddingSettings(cache_enabled=False), cache=cache), OnnxEmbedder)
        assert isinstance(load("hash", EmbeddingSettings(), cache=cache), HashEmbedder)
