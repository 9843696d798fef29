"""nginx from Debian over a folder of pictures, on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

PORT = 8_197
CONFIG = """
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    open_file_cache max=20000 inactive=300s;
    types {{ image/jpeg jpg; image/png png; }}
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {pictures}; }}
}}
"""


class Nginx:
    """`with Nginx(folder, pictures) as server: server.url`. Raises FileNotFoundError when nginx is not installed."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        self._config = folder / "nginx.conf"
        self._config.write_text(CONFIG.format(folder=folder, pictures=pictures, port=PORT))

    def __enter__(self) -> Nginx:
        self._process = subprocess.Popen(["nginx", "-c", str(self._config)], stderr=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    return self
            time.sleep(0.05)
        raise OSError("nginx does not answer")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
