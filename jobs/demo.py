"""`curate demo`: from metadata to a trained step on real pictures, on this machine, without a network.

Starts a small web on loopback (curation/demo), runs every stage over it, verifies the root, trains a toy EVA-CLIP by
DeepSpeed on two CPU ranks, and says where everything is. Run it again and nothing is done twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from curation.demo import metadata
from curation.demo.web import Web
from curation.errors import UserError
from curation.storage import Root
from curation.terminal import write_error, write_out
from curation.verify import verify
from jobs.spark.session import check_java
from jobs.spark.stage import run_stages
from jobs.stages import load_stages

WHERE = "aspect_ratio <= 2.5"
NUM_RANKS = 2
QUERIES = (
    "select source, count(*) as num_rows, sum(kept::int) as kept from manifest group by source order by source",
    "select coalesce(reason, 'kept') as reason, count(*) as num_rows from selection group by 1 order by 2 desc, 1",
    "select status, count(*) as num_rows, any_value(detail) as example from downloads group by 1 order by 2 desc, 1",
    "select d.tier, a.url, b.url as kept_url, round(d.similarity, 3) as similarity from duplicates d "
    "join samples a using (uid) join samples b on b.uid = d.kept_uid where a.source <> b.source "
    "order by d.tier, a.url limit 10",
    "select caption, shard, t.offset, size from train_index t where language = 'en' order by sharpness desc limit 5",
)


def demo(root: str, *, train: bool = True) -> int:
    """Run the demo in folder `root`; the exit status. Raises UserError."""
    opened = Root(root)
    folder = opened.local()
    if folder is None:
        raise UserError("The demo needs a folder on this machine: name one with --root.")
    check_java()
    opened.create(sealed=True)
    metadata.write_metadata(folder / "demo")
    _curate(folder)
    difference = verify(opened)
    if difference:
        write_error(f"curate verify: {difference}\n")
        return 1
    write_out("verified: every row is accounted for once; every checksum, offset and size is right.\n")
    runs = _train(opened, folder) if train else None
    write_out(_summary(folder, runs))
    return 0


def _curate(folder: Path) -> None:
    with Web() as web:
        arguments = argparse.Namespace(recipe="demo", root=str(folder), set=settings(folder / "demo", web))
        run_stages(load_stages(), arguments)


def settings(meta: Path, web: Web) -> list[str]:
    """What recipe `demo` leaves open: the metadata that lies in `meta`, and the port of `web`."""
    files = [json.dumps(str(meta.resolve() / name), ensure_ascii=False) for name in metadata.FILES.values()]
    paths = [f"sources.{number}.paths=[{file}]" for number, file in enumerate(files)]
    places = [f'download.connect_to={{"{host}" = "{place}"}}' for host, place in web.connect_to.items()]
    return paths + places


def _train(root: Root, folder: Path) -> Path:
    """Train on the current train shards, unless that is done; the folder of the run. Raises UserError."""
    current = root.current("train_index")
    assert current is not None  # pack has just run
    runs: Path = folder / "training" / current["fingerprint"]
    if not (runs / "done").exists():
        subprocess_environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        subprocess_environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        command = train_command(folder, runs)
        write_out(f"$ {shlex.join(command)}\n")
        sys.stdout.flush()
        status = subprocess.run(command, env=subprocess_environment, check=False).returncode
        if status:
            raise UserError(f"Training ended with status {status}; what it printed above says why.")
        (runs / "done").touch()
    return runs


def train_command(folder: Path, runs: Path) -> list[str]:
    """The launch line that a user would type."""
    launcher = Path(sys.executable).parent / "deepspeed"
    wanted = [f"folder={runs}", f"data.root={folder}", f"data.where={WHERE}"]
    head = [str(launcher), "--num_gpus", str(NUM_RANKS), "--module", "trainer.train", "--config", "debug"]
    return [*head, *(word for setting in wanted for word in ("--set", setting)), "--resume", "auto"]


def _recall(runs: Path) -> str:
    """Recall and chance of the last record of the run's metrics, one line a measure."""
    records = (runs / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(records[-1])
    named = {key: value for key, value in last.items() if key.endswith("@1")}
    return "".join(f"  {key:44} {value:.3f}\n" for key, value in named.items())


def _summary(folder: Path, runs: Path | None) -> str:
    trained = f"\nRecall on the demo's own pairs ({runs}):\n{_recall(runs)}" if runs else ""
    program, root = _program(), shlex.quote(str(folder))
    looks = "".join(f"              {program} {verb} {root}\n" for verb in ("status", "verify", "report"))
    # The queries hold nothing that a shell reads inside double quotes.
    queries = "".join(f'  {program} query {root} "{sql}"\n' for sql in QUERIES)
    return (
        f"{trained}\n"
        f"metadata      {folder}/demo\n"
        f"tables        {folder}/{{samples,downloads,embeddings,duplicates,scores_*,selection,train_index}}\n"
        f"train shards  {folder}/train\n"
        f"to look at it {looks.lstrip()}\n"
        f"Five queries worth trying:\n{queries}"
    )


def _program() -> str:
    """How the user calls `curate` from here: make and a bare path leave it off PATH."""
    own = Path(sys.executable).parent / "curate"
    with contextlib.suppress(ValueError):
        return shlex.quote(str(own.relative_to(Path.cwd())))
    found = shutil.which("curate")
    return "curate" if found and Path(found) == own else shlex.quote(str(own))
