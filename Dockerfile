# malmm with all it needs, and no weights but the bundled tiny model's. docs/docker.md shows its use.
#
#     docker build -t malmm .
#     docker build -t malmm:cuda --build-arg TORCH_BACKEND=cu128 .

FROM python:3.11-slim AS build

# cpu, or a CUDA version that uv knows, such as cu128: `uv pip install --help` lists them
ARG TORCH_BACKEND=cpu

RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY malmm_cli malmm_cli
RUN uv venv --no-python-downloads /opt/malmm \
 && uv pip install --python /opt/malmm --no-cache --torch-backend "$TORCH_BACKEND" \
      --constraint constraints.txt .

FROM python:3.11-slim

COPY --from=build /opt/malmm /opt/malmm

# Any user may run it (docker run --user): weights go to /models, the rest to /tmp.
RUN mkdir --mode 1777 /models /videos
ENV PATH=/opt/malmm/bin:$PATH \
    HF_HOME=/models \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /videos
ENTRYPOINT ["malmm"]
CMD ["--help"]
