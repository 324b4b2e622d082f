# One image for servers, workers and runs; see deployments/README.md. PyTorch's wheels run on the CPU and, where the
# container is given a GPU, on CUDA. For a machine without one, an index of CPU wheels makes the image much smaller:
#   docker build --build-arg TORCH_INDEX=ADDRESS-OF-PYTORCHS-CPU-WHEELS --tag mannerism:latest .
FROM python:3.11.14-slim-bookworm

ENV DO_NOT_TRACK=true \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_UI_V2_ENABLED=false \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MANNERISM_STATE=/state \
    PREFECT_HOME=/state/prefect \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The numbers are what volumes belong to; the one in /tmp is of the device locks, which containers of a machine share.
RUN groupadd --gid 1000 mannerism \
    && useradd --uid 1000 --gid mannerism --create-home mannerism \
    && install --directory --owner mannerism --group mannerism \
        /app /state /tmp/mannerism-mannerism /tmp/mannerism-mannerism/locks

WORKDIR /app
COPY constraints.txt ./
ARG TORCH_INDEX=""
# What is large and seldom changes has a layer of its own.
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision

COPY --chown=mannerism:mannerism . .
# From the source folder, because `prefect.yaml` belongs to the code.
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[postgres,s3]' boto3 prefect-docker prefect-kubernetes

USER 1000:1000
VOLUME /state
# Of a Prefect server; compose.yaml says what health is of the other services.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=5 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4200/api/health', timeout=4)"]
CMD ["prefect", "server", "start", "--host", "0.0.0.0"]
