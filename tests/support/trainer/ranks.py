"""Run a function on several ranks, one process each, as a launcher would: `run_ranks(2, "tests.trainer.x:f", …)`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from curation.command import end_process
from tests.support.ports import free_port

PROJECT = Path(__file__).resolve().parents[3]


def run_ranks(num_ranks: int, target: str, timeout_s: float = 800, **arguments: Any) -> None:
    """Call `module:function(**arguments)` in `num_ranks` processes that can rendezvous; arguments go as JSON."""
    command = [sys.executable, "-m", "tests.support.trainer.ranks", target, json.dumps(arguments)]
    launch(num_ranks, command, timeout_s=timeout_s)


def launch(num_ranks: int, command: list[str], timeout_s: float = 800, status: int = 0) -> str:
    """Run one command a rank with a launcher's variables; returns rank 0's output, all of it after a failure."""
    port = free_port()
    processes = [
        subprocess.Popen(
            command, cwd=PROJECT, env=_environment(rank, num_ranks, port), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = [process.returncode for process in processes]
    assert found == [status] * num_ranks, f"exit statuses {found}\n" + "\n---\n".join(o[-4000:] for o in outputs)
    return outputs[0]


def _environment(rank: int, num_ranks: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _main() -> None:
    module, _, name = sys.argv[1].partition(":")
    getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
    end_process(0)


if __name__ == "__main__":
    _main()
