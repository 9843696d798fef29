"""Processes: which rank this one is, what a machine without a GPU needs, and the process group's start and end.

Works under `deepspeed`, `torchrun`, `srun` and alone. Nothing here imports torch or deepspeed before
`prepare_environment` has run, because both read the environment on import.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

logger = logging.getLogger("trainer")
TIMEOUT = timedelta(minutes=60)
"""Of a collective; evaluation and large checkpoints keep ranks waiting for one another."""
_CPU_OPERATOR = "deepspeed_shm_comm"


@dataclass(frozen=True)
class Rank:
    """This process among all."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the log and the shared files."""
        return self.rank == 0


def read_rank() -> Rank:
    """Read from the launcher's variables, or slurm's when there is no launcher, without a process group."""
    env = os.environ
    if "RANK" not in env and "SLURM_PROCID" in env and int(env.get("SLURM_NTASKS", "1")) > 1:
        local = int(env.get("SLURM_NTASKS_PER_NODE", "1").split("(")[0])
        return Rank(int(env["SLURM_PROCID"]), int(env["SLURM_LOCALID"]), int(env["SLURM_NTASKS"]), local)
    world_size = int(env.get("WORLD_SIZE", "1"))
    local_world_size = int(env.get("LOCAL_WORLD_SIZE", env.get("LOCAL_SIZE", str(world_size))))
    return Rank(int(env.get("RANK", "0")), int(env.get("LOCAL_RANK", "0")), world_size, local_world_size)


def prepare_environment(rank: Rank) -> None:
    """Set what torch and deepspeed read on import; on a machine without a GPU, what they need to run on its CPUs.

    DeepSpeed compiles a small shared-memory operator on first use there, with the ninja beside this Python.
    """
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    if not has_gpu():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        cores = len(os.sched_getaffinity(0)) // max(1, rank.local_world_size)
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))


def has_gpu() -> bool:
    """Whether there is an NVIDIA or AMD device to train on; asks the system, not torch."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd"))


@contextmanager
def process_group(rank: Rank) -> Iterator[Any]:
    """The process group of all ranks, as the torch device this rank trains on."""
    import deepspeed
    import torch
    import torch.distributed as dist

    deepspeed.utils.logger.setLevel("WARNING")
    # torch 2.15 renamed collectives that older ones, and DeepSpeed, only know by their old names.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    _set_rendezvous(rank)
    gpu = has_gpu()
    device = torch.device("cuda", rank.local_rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
        # DeepSpeed takes this group over. It would make its own without saying which device a rank has.
        dist.init_process_group("nccl", timeout=TIMEOUT, rank=rank.rank, world_size=rank.world_size, device_id=device)
    elif rank.local_rank == 0:
        warn_of_lock()
    deepspeed.init_distributed(
        dist_backend="nccl" if gpu else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=TIMEOUT,
        rank=rank.rank,
        world_size=rank.world_size,
    )
    yield device
    # Without the barrier a rank that leaves early aborts the others' gloo threads.
    dist.barrier()
    dist.destroy_process_group()


def warn_of_lock() -> None:
    """Say so when DeepSpeed's operator for CPUs is locked: whoever finds that lock waits without a word."""
    from torch.utils.cpp_extension import _get_build_directory  # DeepSpeed builds it there

    lock = Path(_get_build_directory(_CPU_OPERATOR, verbose=False), "lock")
    if lock.exists():
        logger.warning(
            "%s exists: another process builds DeepSpeed's operator, which takes about a minute, or was killed "
            "while it did; if nothing happens for minutes, stop this run, delete that file and start again.",
            lock,
        )


def _set_rendezvous(rank: Rank) -> None:
    env = os.environ
    env.setdefault("RANK", str(rank.rank))
    env.setdefault("LOCAL_RANK", str(rank.local_rank))
    env.setdefault("WORLD_SIZE", str(rank.world_size))
    env.setdefault("MASTER_ADDR", "127.0.0.1")
    if "MASTER_PORT" not in env:
        env["MASTER_PORT"] = str(find_free_port() if rank.world_size == 1 else 29500)


def find_free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
