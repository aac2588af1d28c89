"""One real judge for all tests that ask one: SmolLM2-135M-Instruct, served by vLLM on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards.judge.server import Server
from rewards.options import JudgeOptions
from tests.rewards.remote.injector import Injector

ROOT = Path(__file__).parents[3]
PYTHON, MODEL = ROOT / ".venv-judge/bin/python", ROOT / ".venv-judge/share/smollm2"
SERVED_AS = "smollm2-for-tests"


def judge_options(**changed: Any) -> JudgeOptions:
    """What makes answers the same again: greedy ones of one request at a time, without the traces of earlier ones."""
    options: dict[str, Any] = {
        "model": str(MODEL),
        "python": str(PYTHON),
        "args": [
            *("--dtype", "bfloat16", "--max-model-len", "1024", "--max-num-seqs", "1"),
            *("--enforce-eager", "--no-enable-prefix-caching", "--generation-config", "vllm"),
        ],
        "environment": {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_WAIT_POLICY": "PASSIVE",
            "KMP_BLOCKTIME": "0",
            "HF_HUB_OFFLINE": "1",
        },
        "threads": 1,
        "startup_seconds": 240.0,
    }
    return JudgeOptions(**(options | changed))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("judge") / "server.txt"
    server = Server(judge_options(), SERVED_AS, "127.0.0.1", log)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture
def injector(server: Server) -> Iterator[Injector]:
    url = server.served().url
    assert url is not None
    with Injector(url.removesuffix("/v1")).listening() as injector:
        yield injector
