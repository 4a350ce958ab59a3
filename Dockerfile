# The image that a Ray cluster's head and workers run, and that runs alone just as well.
#
#   docker build --tag egra-dist .                                     without a GPU
#   docker build --tag egra-dist:cuda --build-arg VARIANT=cuda .       with NVIDIA GPUs
#   docker run --rm --shm-size 4g egra-dist egra-dist demo
#
# PIP_EXTRA_INDEX_URL may name PyTorch's index of CPU wheels, which spares 3 GB of CUDA libraries.

FROM python:3.11-slim-bookworm AS build
ARG VARIANT=cpu
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /opt/egra_dist
RUN python -m venv /opt/venv
COPY requirements/ requirements/
# As `make install` does: torch with what its wheel asks for, the rest as locked.
RUN pip install torch --constraint requirements/$VARIANT.lock \
 && pip install --no-deps --requirement requirements/$VARIANT.lock
COPY . .
RUN pip install --no-deps --no-build-isolation --editable . \
 && python -m compileall -q egra_dist

FROM python:3.11-slim-bookworm
# wget is what KubeRay's health probes call.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 egra
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/egra_dist /opt/egra_dist
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER egra
WORKDIR /home/egra
CMD ["egra-dist", "--help"]
