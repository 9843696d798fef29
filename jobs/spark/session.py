"""The Spark session of every job: spark-submit's own when there is one, otherwise this machine's cores."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from curation.errors import UserError

MIN_JAVA = 17
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
    """UserError unless Java 17 or later is there (Spark 4 needs it)."""
    version = java_version()
    if version is None:
        raise UserError(f"Spark needs Java {MIN_JAVA} or later and none was found: {INSTALL_JAVA}.")
    if version < MIN_JAVA:
        raise UserError(f"Spark needs Java {MIN_JAVA} or later and found Java {version}: {INSTALL_JAVA}.")


def session(app_name: str, **conf: str) -> SparkSession:
    """The active session, or a new one named `app_name`.

    Under spark-submit the master and its settings are the submitter's. Otherwise it runs on this machine's cores with
    the UI off. Keyword `conf` keys use `__` for a dot.
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    check_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.Builder().appName(app_name).config("spark.sql.session.timeZone", "UTC")
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        local = {
            "spark.master": f"local[{os.cpu_count()}]",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": str(sys.stderr.isatty()).lower(),
            "spark.driver.memory": "2g",
            "spark.sql.shuffle.partitions": str(os.cpu_count()),
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()}",
        }
        for key, value in local.items():
            builder = builder.config(key, value)
    for key, value in conf.items():
        builder = builder.config(key.replace("__", "."), value)
    # It repeats every analysis error with the whole Java stack; the errors themselves reach the user as one sentence.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark
