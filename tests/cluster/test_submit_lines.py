"""The lines for YARN and Kubernetes as spark-submit takes them, up to the moment before it submits; and the image."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from py4j.protocol import Py4JJavaError

from tests.support.documents import PROJECT, SHELL, commands, page

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PAGE = "docs/operations.md"
SIZES = {
    "spark.executor.instances": "40",
    "spark.executor.cores": "4",
    "spark.executor.memory": "2g",
    "spark.executor.memoryOverhead": "6g",
}


def find_line(master: str) -> list[str]:
    """The words of the one spark-submit line of the page for `master`, without spark-submit itself."""
    lines = [words for block in page(PAGE).blocks if block.language == SHELL for words in commands(block.text)]
    (found,) = [line for line in lines if line[:2] == ["spark-submit", "--master"] and line[2].startswith(master)]
    return found[1:]


def prepare(spark: SparkSession, words: list[str], **env: str) -> tuple[list[str], dict[str, str]]:
    """What spark-submit would start in its own process, with its arguments, and the configuration that it would have.

    The paths in it are below the folder in which Spark's Java runs. Nothing of it is connected to.
    """
    jvm: Any = spark.sparkContext._jvm
    given, known = jvm.java.util.ArrayList(), jvm.java.util.HashMap()
    for word in words:
        given.add(word)
    for name, value in env.items():
        known.put(name, value)
    listed = jvm.scala.jdk.javaapi.CollectionConverters.asScala(given).toSeq()
    environment = jvm.org.apache.spark.api.python.PythonUtils.toScalaMap(known)
    arguments = jvm.org.apache.spark.deploy.SparkSubmitArguments(listed, environment)
    found = jvm.org.apache.spark.deploy.SparkSubmit().prepareSubmitEnvironment(arguments, jvm.scala.Option.empty())
    started = [found._4(), *(found._1().apply(number) for number in range(found._1().length()))]
    return started, {pair._1(): pair._2() for pair in found._3().getAll()}


def test_yarn_gets_the_environment_the_project_and_the_sizes(spark: SparkSession) -> None:
    started, conf = prepare(spark, find_line("yarn"), YARN_CONF_DIR="/etc/hadoop/conf")
    assert started[0] == "org.apache.spark.deploy.PythonRunner" and started[1].endswith("/jobs/download.py")
    assert started[3:] == ["--recipe", "mine.toml", "--root", "hdfs:///data/run"]
    assert conf["spark.master"] == "yarn" and conf["spark.submit.deployMode"] == "client"
    assert conf["spark.yarn.dist.archives"].endswith("/env.tar.gz#env")
    assert conf["spark.pyspark.python"] == "env/bin/python"
    assert conf["spark.yarn.dist.pyFiles"].endswith("/clip-curation.zip")
    assert SIZES.items() <= conf.items()


def test_kubernetes_gets_the_image_the_project_and_the_sizes(spark: SparkSession) -> None:
    started, conf = prepare(spark, find_line("k8s"))
    assert started[0] == "org.apache.spark.deploy.PythonRunner" and started[1].endswith("/jobs/download.py")
    assert started[3:] == ["--recipe", "mine.toml", "--root", "s3://bucket/run"]
    assert conf["spark.master"] == "k8s://https://API:6443" and conf["spark.submit.deployMode"] == "client"
    assert conf["spark.kubernetes.container.image"] == "REGISTRY/clip-curation:1"
    assert conf["spark.submit.pyFiles"].endswith("/clip-curation.zip")
    assert SIZES.items() <= conf.items()


def test_a_misspelt_option_would_be_noticed(spark: SparkSession) -> None:
    words = ["--num-exectors" if word == "--num-executors" else word for word in find_line("yarn")]
    with pytest.raises(Py4JJavaError, match="Unrecognized option '--num-exectors'"):
        prepare(spark, words, YARN_CONF_DIR="/etc/hadoop/conf")


# The image. Nobody builds it in these tests: what it names has to agree with what the project says.

LINES = (PROJECT / "Dockerfile").read_text()
IGNORED = (PROJECT / ".dockerignore").read_text().splitlines()


def test_the_image_has_the_spark_and_the_python_that_are_tested() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE))
    (spark_version,) = re.findall(r"^FROM apache/spark:([\d.]+)-", LINES, re.MULTILINE)
    assert spark_version == pins["pyspark"]
    (python_version,) = re.findall(r"^FROM python:([\d.]+)-", LINES, re.MULTILINE)
    assert f"CPython {python_version} " in (PROJECT / "constraints.txt").read_text().splitlines()[0]


def test_the_image_installs_extras_that_exist_under_the_constraints() -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"'\.\[([\w,]+)\]'", LINES)
    assert set(named.split(",")) <= set(extras) and {"spark", "s3"} <= set(named.split(","))
    assert "--constraint constraints.txt" in LINES
    assert f"pip install -c constraints.txt '.[{named}]'" in page(PAGE).inline()


def test_what_the_image_copies_is_there_and_is_all_that_the_package_is_made_of() -> None:
    copied = [name for line in re.findall(r"^COPY ([^-\n].*)$", LINES, re.MULTILINE) for name in line.split()[:-1]]
    assert all((PROJECT / name).exists() for name in copied)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", "constraints.txt", project["project"]["readme"], "LICENSE"} == set(copied)
    assert IGNORED[0] == "*" and {line.removeprefix("!") for line in IGNORED if line.startswith("!")} == set(copied)


def test_the_image_starts_what_it_has_copied() -> None:
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', LINES, re.MULTILINE)
    assert f"COPY --from=spark {entry} {entry}" in LINES
    home = re.findall(r"SPARK_HOME=(\S+)", LINES)[0]
    assert f"COPY --from=spark {home} {home}" in LINES
