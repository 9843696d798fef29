#!/usr/bin/env bash
# `make install`: checks Java and the C++ compiler, makes the virtualenv, installs the project with the tested versions.
set -euo pipefail
python=$1
venv=$2

as_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

need() { # command, Debian package, what it is for
    command -v "$1" >/dev/null && return
    if as_root_on_debian; then
        echo "Installing $2 ($3)."
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
    else
        echo "$1 is missing ($3): install it (Debian and Ubuntu: sudo apt-get install $2) and run make again." >&2
        exit 2
    fi
}

java_major() { java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.11" >&2
    exit 2
}
need java openjdk-17-jre-headless "Spark 4 runs on Java 17 or later"
major=$(java_major)
if [ "${major:-0}" -lt 17 ]; then
    echo "Java ${major:-?} is too old, Spark 4 needs 17 or later: install openjdk-17-jre-headless and put it first on PATH." >&2
    exit 2
fi
need g++ g++ "DeepSpeed builds its CPU collectives once"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --constraint constraints.txt)
# torch first and from its own pin: a range would bring several gigabytes of CUDA on a machine without a GPU.
"${pip[@]}" "$(grep '^torch==' constraints.txt)" 2> >(grep -v 'is ignored: it is neither' >&2)
"${pip[@]}" --editable '.[dev]' 2> >(grep -v 'is ignored: it is neither' >&2)
# The oracles of the tests need torchvision, which has no CPU build: without dependencies, tests stub what is missing.
"${pip[@]}" --no-deps timm open_clip_torch torchvision 2> >(grep -v 'is ignored: it is neither' >&2)
"${pip[@]}" huggingface_hub pyyaml 2> >(grep -v 'is ignored: it is neither' >&2)
