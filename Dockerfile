# The image of drivers and executors on Kubernetes, from the versions that are tested together (constraints.txt):
#   docker build -t REGISTRY/clip-curation:1 .
# Spark's own image brings /opt/spark with the entrypoint that Kubernetes starts; its Python is older than this project's.
FROM apache/spark:4.3.0-scala2.13-java17-ubuntu AS spark

FROM python:3.11-slim-bookworm
RUN apt-get update \
 && apt-get install --yes --no-install-recommends openjdk-17-jre-headless gosu libnss-wrapper procps tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 185 --gid root --create-home spark

COPY --from=spark /opt/spark /opt/spark
COPY --from=spark /opt/entrypoint.sh /opt/entrypoint.sh

WORKDIR /opt/clip-curation
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY curation curation
COPY filters filters
COPY jobs jobs
COPY trainer trainer
# torch comes from its index without CUDA, whose build counts as the higher one; executors on GPUs take another index.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" '.[spark,score,s3]'

ENV SPARK_HOME=/opt/spark PYSPARK_PYTHON=/usr/local/bin/python3 PYSPARK_DRIVER_PYTHON=/usr/local/bin/python3 \
    PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
USER spark
ENTRYPOINT ["/opt/entrypoint.sh"]
