# docker build -f docker/cpu.Dockerfile -t zslkeras:cpu .
# docker run --rm -v "$PWD/data:/data" -v "$PWD/runs:/app/runs" zslkeras:cpu --model eszsl --dataset shapes
FROM python:3.11-slim

WORKDIR /app
COPY docker/constraints.txt docker/constraints.txt
COPY setup.cfg pyproject.toml README.md ./
COPY zslkeras zslkeras
COPY experiments experiments
COPY tuning tuning
RUN pip install --no-cache-dir --constraint docker/constraints.txt .

ENV ZSLKERAS_DATA=/data
ENTRYPOINT ["python", "-m", "experiments.run"]
CMD ["--model", "eszsl", "--dataset", "shapes"]
