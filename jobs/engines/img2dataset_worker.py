"""img2dataset's Downloader, Resizer and writer in their own process: `python -m jobs.engines.img2dataset_worker FILE`.

FILE holds the pickled configuration and opt-out lists. Each line on standard input is a batch (JSON: folder, feather,
num_rows, claims); a line on standard output answers it. It ends with its standard input, and so with its parent.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import resource
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

from curation.recipe.config import DownloadConfig
from curation.recipe.user_agent import product_token
from jobs.engines.img2dataset_guard import WebGuard

COLUMNS = ["uid", "caption", "url"]
MEMORY_BYTES = 2 << 30
"""Address space beyond what is mapped at the start: img2dataset's transparency arithmetic alone wants 80 B a pixel."""
STACK_BYTES = 512 << 10
PNG_COMPRESSION = 6


def limit_memory() -> None:
    """Limit the address space: a picture that needs more than MEMORY_BYTES fails, and the process goes on."""
    with open("/proc/self/statm", encoding="ascii") as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, mapped + MEMORY_BYTES))


def resizer(config: DownloadConfig) -> Any:
    """img2dataset's Resizer with the recipe's settings; what fits already stays as it was fetched."""
    from img2dataset.resizer import Resizer

    return Resizer(
        image_size=config.image_size,
        resize_mode=config.resize_mode,
        resize_only_if_bigger=config.only_if_bigger,
        encode_format=config.encode_format,
        encode_quality=PNG_COMPRESSION if config.encode_format == "png" else config.encode_quality,
        skip_reencode=True,
        disable_all_reencoding=config.resize_mode == "no",
        max_image_area=config.max_pixels,
    )


def downloader(config: DownloadConfig, folder: str, num_rows: int) -> Any:
    """img2dataset's Downloader that writes one webdataset shard into `folder`."""
    from img2dataset.downloader import Downloader
    from img2dataset.writer import WebDatasetSampleWriter

    return Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=resizer(config),
        thread_count=config.max_concurrency,
        save_caption=True,
        extract_exif=False,
        output_folder=folder,
        column_list=COLUMNS,
        timeout=config.timeout_s,
        number_sample_per_shard=num_rows,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format=config.encode_format,
        retries=config.retries,
        user_agent_token=product_token(config.user_agent),
        disallowed_header_directives=None,  # the guard reads every order of them
    )


def _listen(batches: queue.Queue[str]) -> None:
    for line in sys.stdin:
        batches.put(line)
    os._exit(0)


def main() -> None:
    """Serve batches until standard input closes."""
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # img2dataset prints
    config, opt_out = pickle.loads(Path(sys.argv[1]).read_bytes())
    resizer(config)  # imports everything that a picture needs before memory is limited
    guard = WebGuard(config, opt_out)
    urllib.request.install_opener(guard)  # type: ignore[arg-type]  # urlopen asks it for `open` alone
    threading.stack_size(STACK_BYTES)
    limit_memory()
    batches: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(batches,), daemon=True).start()
    sink.write("ready\n")
    sink.flush()
    while True:
        batch = json.loads(batches.get())
        guard.claims = {url: set(claimed) for url, claimed in batch["claims"].items()}
        whole, _ = downloader(config, batch["folder"], batch["num_rows"])((0, batch["feather"]))
        Path(batch["folder"], "fetched.json").write_text(json.dumps(guard.fetched))
        guard.fetched.clear()
        sink.write(f"{'done' if whole else 'failed'}\n")
        sink.flush()


if __name__ == "__main__":
    main()
