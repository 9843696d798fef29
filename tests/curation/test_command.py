"""The end of a command: its status, one sentence for whatever ends it, and nothing that Python's clean-up adds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation.command import BROKEN_PIPE, run_guarded
from curation.errors import UserError

THREAD_OF_ARROW = """
import io, sys, threading, time
import pyarrow as pa
import pyarrow.parquet as pq
from curation.command import run_program

begun, is_open = threading.Event(), threading.Event()

class Slow(io.BytesIO):
    def read(self, size=-1):
        data = super().read(size)
        if is_open.is_set() and threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.5)
        return data

def main():
    global file
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(1000)}), sink, row_group_size=100)
    file = pq.ParquetFile(Slow(sink.getvalue()), pre_buffer=True)
    is_open.set()
    threading.Thread(target=next, args=(file.iter_batches(10),), daemon=True).start()
    begun.wait()
    sys.stdout.write("said")
    return 3

run_program(main)
"""


def run(script: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_a_thread_of_a_library_that_comes_late_does_not_change_the_status() -> None:
    done = run(THREAD_OF_ARROW)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said", "")


def test_threads_and_exit_handlers_end_first_and_pools_that_nobody_told_to() -> None:
    lines = (
        "import atexit, sys, threading, time",
        "from concurrent.futures import ThreadPoolExecutor",
        "from curation.command import end_process",
        "def late():",
        "    time.sleep(0.2)",
        "    sys.stdout.write('thread ')",
        "atexit.register(sys.stdout.write, 'handler')",
        "pool = ThreadPoolExecutor(1)",
        "pool.submit(int).result()",
        "threading.Thread(target=late).start()",
        "end_process(3)",
    )
    done = run("\n".join(lines))
    assert (done.returncode, done.stdout, done.stderr) == (3, "thread handler", "")


@pytest.mark.parametrize(("raised", "status"), [("SystemExit(2)", 2), ("SystemExit()", 0), ("SystemExit('no')", 1)])
def test_what_a_program_exits_with_is_its_status(raised: str, status: int) -> None:
    done = run(f"from curation.command import run_program\ndef main(): raise {raised}\nrun_program(main)")
    assert (done.returncode, done.stderr) == (status, "no\n" if status == 1 else "")


GUARDED = """
import sys
from curation.command import run_guarded, run_program
run_program(lambda: run_guarded(lambda: sys.stdout.write("x" * 10) and None, "curate: "))
"""


def test_no_room_for_what_is_said_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = run(GUARDED, full.fileno())
    assert done.returncode == 2 and done.stderr.startswith("curate: ") and done.stderr.count("\n") == 1


def test_nobody_who_reads_ends_a_command_without_a_word() -> None:
    script = f"import os\nread, write = os.pipe()\nos.close(read)\nos.dup2(write, 1)\n{GUARDED}"
    done = run(script)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_who_does_not_tell_refusals_still_ends_with_their_status(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise UserError("It is wrong.")

    assert run_guarded(refuse, tells_refusals=False) == 2 and not capsys.readouterr().err
    assert run_guarded(refuse, "curate: ") == 2 and capsys.readouterr().err == "curate: It is wrong.\n"
