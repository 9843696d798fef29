#!/usr/bin/env bash
# The trainer's GPU benchmark on a machine that has CUDA and torch and perhaps no network.
#   here, with a network:  scripts/gpu_benchmark.sh prepare     what such a machine lacks, as wheels in gpu_wheels/
#   there, one command:    scripts/gpu_benchmark.sh             installs them into a folder of its own and measures
# It takes eight minutes there and writes rows as they come to benchmarks/results/trainer_gpu.{json,md}, and a copy to
# $OUT where that is set.
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=gpu_wheels
packages="deepspeed hjson py-cpuinfo msgpack psutil pydantic pydantic_core annotated-types typing-inspection
  typing_extensions einops ninja tqdm open_clip_torch timm huggingface_hub safetensors ftfy wcwidth regex duckdb
  tldextract requests-file requests idna urllib3 certifi charset-normalizer filelock fsspec packaging simplejpeg yarl
  multidict propcache"

if [ "${1:-}" = prepare ]; then
  # deepspeed is pure Python where none of its operators is built ahead.
  # shellcheck disable=SC2086  # names, one a word
  DS_BUILD_OPS=0 "${PYTHON:-.venv/bin/python}" -m pip wheel -q --no-deps --no-build-isolation -c constraints.txt \
    -w "$wheels" $packages
  du -sh "$wheels"
  exit
fi

target=$(mktemp -d)
trap 'rm -rf "$target"' EXIT
python3 -m pip install -q --no-index --no-deps --target "$target" "$wheels"/*.whl
# What the machine has comes first: torch and what fits its CUDA.
sites=$(python3 -c 'import site, sys; print(":".join(site.getsitepackages()))')
PYTHONPATH="$PWD:$sites:$target" timeout -k 5 560 python3 -m benchmarks.trainer gpu ||
  echo "It ended early; the rows that were written stand." >&2
if [ -n "${OUT:-}" ]; then cp benchmarks/results/trainer_gpu.* "$OUT"/; fi
