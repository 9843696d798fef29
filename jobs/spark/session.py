"""The Spark session of every job: spark-submit's own when there is one, otherwise this machine's cores."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from curation.errors import UserError
from jobs.spark.log import read_end

MIN_JAVA = 17
MIN_OPEN_FILES = 1024
MAX_FAILURES = 4
"""Attempts of a task before its job fails, as on a cluster; on one machine Spark makes one."""
LOG_CONFIG = Path(__file__).with_name("log4j2.properties")
INSTALL_JAVA = (
    "install one (Debian and Ubuntu: apt-get install openjdk-17-jre-headless) and put it on PATH or in JAVA_HOME"
)


def java_version() -> int | None:
    """Major version of the Java that Spark would use, None when there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if not java or not Path(java).exists():
        return None
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found[1]) if found else None


def check_java() -> None:
    """UserError unless Java 17 or later is there (Spark 4 needs it), and may open as many files as it does."""
    allow_open_files()
    version = java_version()
    if version is None:
        raise UserError(f"Spark needs Java {MIN_JAVA} or later and none was found: {INSTALL_JAVA}.")
    if version < MIN_JAVA:
        raise UserError(f"Spark needs Java {MIN_JAVA} or later and found Java {version}: {INSTALL_JAVA}.")


def allow_open_files() -> None:
    """Raise this process's own limit of open files to MIN_OPEN_FILES; UserError when the shell's does not allow it.

    Java opens each of Spark's 300 archives, and ends in the middle of its start when it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
            raise UserError(
                f"Spark needs {MIN_OPEN_FILES:,} open files and this shell allows {hard:,}: allow more (`ulimit -n "
                f"4096`, as root or in the settings of the system)."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, hard))


def session(app_name: str, log: Path | None = None, **conf: str) -> SparkSession:
    """The active session, or a new one named `app_name`.

    Under spark-submit the master and its settings are the submitter's. Otherwise it runs on this machine's cores with
    the UI off, and what its processes print goes to the end of the file `log`, if one is given. Keyword `conf` keys
    use `__` for a dot. Raises UserError when there is no Java, or when it does not start.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    check_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {"spark.app.name": app_name, "spark.sql.session.timeZone": "UTC"}
    is_ours = "PYSPARK_GATEWAY_PORT" not in os.environ
    if is_ours:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= _local_settings()
    settings |= {key.replace("__", "."): value for key, value in conf.items()}
    # It repeats every analysis error with the whole Java stack; the errors themselves reach the user as one sentence.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    if is_ours and log is not None and SparkContext._gateway is None:
        _start_java(settings, log)
    builder = SparkSession.Builder()
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _local_settings() -> dict[str, str]:
    return {
        "spark.master": f"local[{os.cpu_count()},{MAX_FAILURES}]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": "2g",
        "spark.sql.shuffle.partitions": str(os.cpu_count()),
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()}",
    }


def _start_java(settings: dict[str, str], log: Path) -> None:
    """Start Spark's Java process with `log` for its streams, and the context that sessions then share."""
    conf = SparkConf().setAll(list(settings.items()))
    try:
        with open(log, "ab") as sink:
            gateway = launch_gateway(conf, {"stdout": sink, "stderr": sink})  # type: ignore[no-untyped-call]
    except PySparkRuntimeError as error:
        raise UserError(f"Spark's Java process did not start: {_find_reason(log)}") from error
    SparkContext(conf=conf, gateway=gateway)


def _find_reason(log: Path) -> str:
    """The line of the log that says why Java has not started."""
    lines = [line.strip() for line in read_end(log).splitlines() if line.strip() and not line.startswith("\tat ")]
    named = [line for line in lines if re.search(r"Error|Exception|Could not|Unrecognized", line)]
    return (named or lines[-1:] or ["it said nothing."])[0]


def is_java_gone(wait_s: float = 0.0) -> bool:
    """Whether the Java process that this process has started has ended, or ends within `wait_s` seconds."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait_s)
    return process.poll() is not None
