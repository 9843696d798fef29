"""The decoding process with a weakness: bytes that end in DIE kill it, bytes that end in HANG stop it, LIE
makes it answer nonsense."""

from __future__ import annotations

import os
import signal
import time

from curation.images import decoding_process
from curation.recipe.config import DownloadConfig

DIE, HANG, LIE = b"DIE", b"HANG", b"LIE"
_answer_picture = decoding_process.answer_picture


def answer_picture(data: bytes, config: DownloadConfig) -> tuple[bytes, bytes]:
    if data.endswith(DIE):
        os.kill(os.getpid(), signal.SIGKILL)
    if data.endswith(HANG):
        time.sleep(3600)
    if data.endswith(LIE):
        return b"c" * 9, b""
    return _answer_picture(data, config)


if __name__ == "__main__":
    decoding_process.answer_picture = answer_picture
    decoding_process.main()
