# docker build -f docker/cpu.Dockerfile -t zslkeras:cpu .
# mkdir -p data runs && docker run --rm --user "$(id -u)" -v "$PWD/data:/data" \
#   -v "$PWD/runs:/app/runs" zslkeras:cpu --model eszsl --dataset shapes
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

WORKDIR /app
COPY docker/requirements.txt docker/requirements.txt
RUN pip install --no-cache-dir --require-hashes --requirement docker/requirements.txt
COPY setup.cfg pyproject.toml README.md ./
COPY zslkeras zslkeras
COPY experiments experiments
COPY tuning tuning
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# A user without rights. Folders that are mounted belong to whoever made them, hence `--user` above.
RUN useradd --uid 1000 zslkeras && mkdir runs /data && chown zslkeras runs /data
USER zslkeras

ENV ZSLKERAS_DATA=/data XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/cache/matplotlib
ENTRYPOINT ["python", "-m", "experiments.run"]
CMD ["--model", "eszsl", "--dataset", "shapes"]
