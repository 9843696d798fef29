"""A standalone Spark cluster on loopback: one master, workers of one core each, and spark-submit on it.

    with Cluster() as cluster:
        done = cluster.submit("jobs/download.py", "--recipe", recipe, "--root", root)

`cluster.workers` are the worker processes, `cluster.master_url` is what spark-submit was given, and
`cluster.executors()` and `cluster.python_workers()` are what the workers have started for the applications of now.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_S = 300.0
POLL_S = 0.2


class Cluster:
    """Starts with the `with` and is gone after it. `num_workers` workers of `memory` each register before it begins.

    `py_files` is a zip that spark-submit ships to executors.
    """

    def __init__(self, num_workers: int = 2, memory: str = "1g", py_files: Path | None = None) -> None:
        self.num_workers, self.memory, self.py_files = num_workers, memory, py_files
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        self._folder = tempfile.TemporaryDirectory(prefix="spark-cluster-")
        port, self._ui_port = free_port(), free_port()
        self.master_url = f"spark://127.0.0.1:{port}"
        ports = ["--port", str(port), "--webui-port", str(self._ui_port)]
        try:
            self._master = self._start("master.Master", *ports)
            self._wait(0, "The master did not start")
            for _ in range(self.num_workers):
                self.add_worker()
            self.wait_for_workers(self.num_workers)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.workers, self._master):
            kill(process)
        self._folder.cleanup()

    def add_worker(self, **env: str) -> subprocess.Popen[bytes]:
        """Start one more worker, with `env` besides; it is up once `num_alive` counts it."""
        place = str(Path(self._folder.name, f"work-{len(self.workers)}"))
        sizes = ["--cores", "1", "--memory", self.memory, "--work-dir", place, "--webui-port", "0"]
        self.workers.append(self._start("worker.Worker", *sizes, self.master_url, **env))
        return self.workers[-1]

    def wait_for_workers(self, num_alive: int) -> None:
        """Wait until the master counts so many. Raises RuntimeError with the logs when it never does."""
        self._wait(num_alive, "The workers did not register")

    def executors(self, worker: subprocess.Popen[bytes] | None = None) -> list[int]:
        """Process ids of the executors of now, of `worker` alone where it is named."""
        found = self._started(worker)
        return [pid for _, pid, command in found if "CoarseGrainedExecutorBackend" in command]

    def python_workers(self, worker: subprocess.Popen[bytes] | None = None) -> list[int]:
        """Process ids of the Python workers of now, which are forks of the daemon of an executor."""
        found = self._started(worker)
        daemons = {pid for _, pid, command in found if "pyspark.daemon" in command}
        return [pid for parent, pid, command in found if "pyspark.daemon" in command and parent in daemons]

    def _started(self, worker: subprocess.Popen[bytes] | None) -> list[tuple[int, int, str]]:
        known = _children()
        return [process for one in ([worker] if worker else self.workers) for process in _below(one.pid, known)]

    def num_alive(self) -> int:
        """Workers that the master counts. Raises OSError or ValueError before the master answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ui_port}/json/", timeout=60) as answer:
            return int(json.load(answer)["aliveworkers"])

    def command(self, script: str | Path, *arguments: object, conf: Mapping[str, str] | None = None) -> list[str]:
        """The spark-submit line that runs `script` (relative to the repository) on this cluster."""
        settings = {"spark.executor.memory": "600m", "spark.driver.memory": "600m", "spark.ui.enabled": "false"}
        settings |= {"spark.sql.shuffle.partitions": "2", "spark.driver.host": "127.0.0.1"} | dict(conf or {})
        flags = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        shipped = ["--py-files", str(self.py_files)] if self.py_files else []
        submit = [str(BIN / "spark-submit"), "--master", self.master_url, *shipped, *flags]
        return [*submit, str(REPOSITORY / script), *map(str, arguments)]

    def submit(
        self, script: str | Path, *arguments: object, conf: Mapping[str, str] | None = None, timeout_s: float = 800
    ) -> subprocess.CompletedProcess[str]:
        """Run `script` to its end and give what it printed. Raises subprocess.TimeoutExpired."""
        command = self.command(script, *arguments, conf=conf)
        return subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def _start(self, name: str, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        command = [str(BIN / "spark-class"), f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *arguments]
        log = Path(self._folder.name, f"{name}-{len(self.workers)}.log")
        own, streams = environment() | env, {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        with open(log, "wb") as sink:
            return subprocess.Popen(command, env=own, stdout=sink, start_new_session=True, **streams)

    def _wait(self, num_workers: int, complaint: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            # The master does not listen yet, or answers with its page before it knows the address of its JSON.
            with contextlib.suppress(OSError, ValueError):
                if self.num_alive() >= num_workers:
                    return
            time.sleep(POLL_S)
        logs = "\n".join(log.read_text(errors="replace")[-2_000:] for log in Path(self._folder.name).glob("*.log"))
        raise RuntimeError(f"{complaint} within {START_S:.0f} s:\n{logs}")


def environment() -> dict[str, str]:
    """This process' environment, with this Python for Spark's workers and the loopback for its drivers."""
    more = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return os.environ | more | {"PATH": os.pathsep.join((str(BIN), os.environ.get("PATH", "")))}


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _children() -> dict[int, list[tuple[int, str]]]:
    """Parent → (pid, command line) of every process of this machine."""
    found: dict[int, list[tuple[int, str]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.setdefault(parent, []).append((int(entry.name), command))
    return found


def _below(pid: int, known: dict[int, list[tuple[int, str]]]) -> Iterator[tuple[int, int, str]]:
    """(parent, pid, command line) of everything that `pid` started, directly or not."""
    for child, command in known.get(pid, []):
        yield pid, child, command
        yield from _below(child, known)
