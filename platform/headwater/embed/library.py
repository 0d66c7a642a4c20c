"""What the embedders of optional libraries share: the library opened once, in a thread, and run there."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headwater.embed.embedder import Embedder, Kind
from headwater.errors import EmbedError

if TYPE_CHECKING:
    from headwater.embed.embedder import Vectors

# what these libraries raise for a model they do not know, cannot fetch, or cannot run; ImportError comes before
_FAILURES = (OSError, ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, EOFError)


class LibraryEmbedder(Embedder):
    """A model of another library in this process. A provider sets `provider`, and writes `open_model` and `run`."""

    provider: str
    extra: str  # of headwater, that installs the library

    def __init__(
        self,
        model: str,
        *,
        prefix: Mapping[Kind, str] | None = None,
        threads: int = 1,
        batch_size: int = 64,
        cache_dir: str | None = None,
        dimension: int | None = None,
    ) -> None:
        super().__init__(dimension=dimension)
        self.name, self.model, self.batch_size = f"{self.provider}:{model}", model, batch_size
        self._prefix, self._threads, self._cache_dir = dict(prefix or {}), threads, cache_dir
        before = "".join(f"{kind}={text} " for kind, text in sorted(self._prefix.items()) if text)
        self.version = hashlib.sha256(before.encode()).hexdigest()[:12] if before else ""
        self._opening, self._open = threading.Lock(), None

    @abstractmethod
    def open_model(self) -> Any:
        """The model, loaded. Any error of the library may leave."""

    @abstractmethod
    def run(self, model: Any, texts: Sequence[str], kind: Kind) -> Any:
        """`(n, d)` of anything numpy takes."""

    async def embed_batch(self, texts: Sequence[str], kind: Kind) -> Vectors:
        return await asyncio.to_thread(self._work, texts, kind)

    def _work(self, texts: Sequence[str], kind: Kind) -> Vectors:
        import numpy as np

        try:
            with self._opening:
                self._open = self._open or self.open_model()
            return np.asarray(self.run(self._open, texts, kind), np.float32)
        except ImportError as error:
            mend = f"To mend it: pip install 'headwater[{self.extra}]'"
            raise EmbedError(f"{self.name} needs a library that is not installed ({error}). {mend}") from error
        except _FAILURES as error:
            raise EmbedError(f"{self.name}: {type(error).__name__}: {str(error)[:300]}") from error

    async def aclose(self) -> None:
        self._open = None
