# `edgerazor serve` as a container; see docs/guide/serve.md. Built from the repository:  docker build -t edgerazor .
FROM python:3.12-slim AS build
# llama-cpp-python comes as source.
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY edgerazor edgerazor
RUN python -m venv /opt/edgerazor
# GGML_NATIVE off: the image may run on another processor than the one it was built on.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF"
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/edgerazor/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt torch
RUN /opt/edgerazor/bin/pip install --no-cache-dir --constraint constraints.txt ".[serve,gguf,llamacpp,onnx]"

FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin edgerazor
COPY --from=build /opt/edgerazor /opt/edgerazor
ENV PATH="/opt/edgerazor/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HOME=/tmp
USER 10001
EXPOSE 8000
VOLUME ["/models", "/tmp"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["edgerazor", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model.gguf"]
