# docker build -f docker/gpu.Dockerfile -t zslkeras:gpu .
# docker run --rm --gpus all -v "$PWD/data:/data" -v "$PWD/runs:/app/runs" zslkeras:gpu --model eszsl --dataset shapes
#
# CUDA's libraries come from the [cuda] extra; the host provides the driver and the NVIDIA container toolkit.
FROM python:3.11-slim

WORKDIR /app
COPY docker/constraints.txt docker/constraints.txt
COPY setup.cfg pyproject.toml README.md ./
COPY zslkeras zslkeras
COPY experiments experiments
COPY tuning tuning
RUN pip install --no-cache-dir --constraint docker/constraints.txt '.[cuda]'

ENV ZSLKERAS_DATA=/data
ENV TF_FORCE_GPU_ALLOW_GROWTH=true
# Mirrored over all visible GPUs; a flag given to `docker run` later on the line wins.
ENTRYPOINT ["python", "-m", "experiments.run", "--strategy", "mirrored"]
CMD ["--model", "eszsl", "--dataset", "shapes"]
