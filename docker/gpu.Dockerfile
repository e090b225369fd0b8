# docker build -f docker/gpu.Dockerfile -t zslkeras:gpu .
# mkdir -p data runs && docker run --rm --gpus all --user "$(id -u)" -v "$PWD/data:/data" \
#   -v "$PWD/runs:/app/runs" zslkeras:gpu --model eszsl --dataset shapes
#
# CUDA's libraries come from the [cuda] extra, in requirements-cuda.txt; the host provides the driver and the NVIDIA
# container toolkit.
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

WORKDIR /app
COPY docker/requirements-cuda.txt docker/requirements-cuda.txt
RUN pip install --no-cache-dir --require-hashes --requirement docker/requirements-cuda.txt
COPY setup.cfg pyproject.toml README.md ./
COPY zslkeras zslkeras
COPY experiments experiments
COPY tuning tuning
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# A user without rights. Folders that are mounted belong to whoever made them, hence `--user` above.
RUN useradd --uid 1000 zslkeras && mkdir runs /data && chown zslkeras runs /data
USER zslkeras

ENV ZSLKERAS_DATA=/data XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
ENV TF_FORCE_GPU_ALLOW_GROWTH=true
# Mirrored over all visible GPUs; a flag given to `docker run` later on the line wins.
ENTRYPOINT ["python", "-m", "experiments.run", "--strategy", "mirrored"]
CMD ["--model", "eszsl", "--dataset", "shapes"]
