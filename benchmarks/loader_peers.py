"""How each loader gives samples, one function a loader, for benchmarks/loader.py; needs no package of this project.

    PYTHON benchmarks/loader_peers.py run streaming OPTIONS.json
    PYTHON benchmarks/loader_peers.py write-mds TARS FOLDER

One process, no worker of its own, so the rate is that of one worker. Prints one line of JSON.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import random
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
Batches = Iterator[list[Any]]


def transform(options: dict[str, Any]) -> Callable[[bytes], Any]:
    """open_clip's training transform by Pillow and torchvision, or the bytes as they are."""
    if not options["decode"]:
        return lambda data: data
    if options["stub"]:
        from tests.support.trainer.torchvision_stub import oracle

        transforms = oracle("torchvision.transforms")
    else:
        transforms = importlib.import_module("torchvision.transforms")
    from PIL import Image

    size, bicubic = options["image_size"], transforms.InterpolationMode.BICUBIC
    steps = [
        transforms.RandomResizedCrop(size, scale=(0.9, 1.0), interpolation=bicubic),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    made = transforms.Compose(steps)
    return lambda data: made(Image.open(io.BytesIO(data)).convert("RGB"))


def collate(options: dict[str, Any]) -> Callable[[list[tuple[Any, str]]], Any]:
    if not options["decode"]:
        return lambda samples: samples
    import torch

    return lambda samples: (torch.stack([pixels for pixels, _ in samples]), [text for _, text in samples])


def webdataset(options: dict[str, Any]) -> Iterator[Any]:
    """Shuffled shards, a shuffle buffer, and selection while streaming by a set of keys: its author's recipe."""
    import webdataset as wds

    urls = sorted(map(str, Path(options["data"]).glob("*.tar")))
    chosen = set(options["uids"] or ())
    decode, together = transform(options), collate(options)
    data = wds.WebDataset(urls, shardshuffle=100, seed=options["epoch"])
    if options["uids"] is not None:
        data = data.select(lambda sample: sample["__key__"] in chosen)
    data = data.shuffle(1_000).map(lambda sample: (decode(sample["jpg"]), sample["txt"].decode()))
    return iter(data.batched(options["batch_size"], collation_fn=together, partial=True))


_WIDS: dict[str, Any] = {}


def wids(options: dict[str, Any]) -> Iterator[Any]:
    """Random access by an index, in the order of its own chunked sampler."""
    import wids as package

    if not _WIDS:
        shards = [
            {"url": str(p), "nsamples": options["per_shard"]} for p in sorted(Path(options["data"]).glob("*.tar"))
        ]
        _WIDS["data"] = package.ShardListDataset(shards, transformations=[], lru_size=len(shards), keep=True)
        keys = options["keys"]
        chosen = set(options["uids"] or keys)
        _WIDS["places"] = {k for k, key in enumerate(keys) if key in chosen}
    decode, together = transform(options), collate(options)
    sampler = package.ChunkedSampler(_WIDS["data"], shuffle=True, seed=options["epoch"])

    def samples() -> Iterator[tuple[Any, str]]:
        for place in sampler:
            if place in _WIDS["places"]:
                sample = _WIDS["data"][place]
                yield decode(sample[".jpg"].read()), sample[".txt"].read().decode()

    return _make_batches(samples(), options, together)


_STREAMING: dict[str, Any] = {}


def streaming(options: dict[str, Any]) -> Iterator[Any]:
    """Its own shuffled iteration of everything; for a part, random access to the samples wanted, in chunks of 2,000."""
    from streaming import StreamingDataset

    if not _STREAMING:
        data = StreamingDataset(local=options["data"], shuffle=True, batch_size=options["batch_size"])
        wanted = set(options["uids"] or ())
        _STREAMING["data"] = data
        _STREAMING["places"] = [k for k, key in enumerate(options["keys"]) if key in wanted]
    data, places = _STREAMING["data"], list(_STREAMING["places"])
    decode, together = transform(options), collate(options)
    if options["uids"] is not None:
        chunks = [list(c) for _, c in itertools.groupby(places, key=lambda place: place // 2_000)]
        rng = random.Random(options["epoch"])
        rng.shuffle(chunks)
        for chunk in chunks:
            rng.shuffle(chunk)
        found: Iterator[Any] = (data[place] for chunk in chunks for place in chunk)
    else:
        found = iter(data)
    return _make_batches(((decode(s["jpg"]), s["txt"]) for s in found), options, together)


def _make_batches(samples: Iterator[tuple[Any, str]], options: dict[str, Any], together: Any) -> Iterator[Any]:
    while batch := list(itertools.islice(samples, options["batch_size"])):
        yield together(batch)


def measure_reader(epoch: Callable[[dict[str, Any]], Iterator[Any]], options: dict[str, Any]) -> dict[str, Any]:
    """Samples a second over whole epochs until `seconds` have passed (or a part of one), bytes read, peak memory."""
    started = time.perf_counter()
    batches = epoch({**options, "epoch": 0})
    next(batches)
    first_s = time.perf_counter() - started
    # One whole epoch first: files, tables and indexes are then as warm for everybody as they get.
    deadline = time.perf_counter() + options["seconds"]
    for _ in batches:
        if time.perf_counter() > deadline:
            break
    num, read, began, began_cpu = 0, _bytes_read(), time.perf_counter(), time.process_time()
    for number in itertools.count(1):
        for batch in epoch({**options, "epoch": number}):
            num += len(batch[1]) if isinstance(batch, tuple) else len(batch)
            if time.perf_counter() > began + 3 * options["seconds"]:
                break
        if time.perf_counter() > began + options["seconds"]:
            break
    taken, taken_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "samples_s": num / taken,
        "samples_cpu_s": num / taken_cpu,
        "first_batch_s": first_s,
        "bytes_a_sample": (_bytes_read() - read) / num,
        "peak_mb": _peak_mb(),
    }


def _bytes_read() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def write_mds(tars: Path, folder: Path) -> None:
    from streaming import MDSWriter

    columns = {"uid": "str", "jpg": "bytes", "txt": "str"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=1 << 25) as out:
        for path in sorted(tars.glob("*.tar")):
            with tarfile.open(path) as archive:
                sample: dict[str, bytes] = {}
                for member in archive:
                    key, _, kind = member.name.partition(".")
                    file = archive.extractfile(member)
                    assert file is not None  # shards hold files only
                    sample[kind] = file.read()
                    if kind == "json":
                        out.write({"uid": key, "jpg": sample["jpg"], "txt": sample["txt"].decode()})


def main() -> None:
    if sys.argv[1] == "write-mds":
        write_mds(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    options = json.loads(Path(sys.argv[3]).read_text())
    # Imports are no part of the first batch.
    importlib.import_module("torch.utils.data")
    importlib.import_module(sys.argv[2])
    transform(options)
    sys.stdout.write(json.dumps(measure_reader(globals()[sys.argv[2]], options)) + "\n")


if __name__ == "__main__":
    main()
