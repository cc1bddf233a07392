# The image of the server, the nightly worker and the MLflow server. Build it: podman build -t regulars .
# Nothing in it is secret: settings come as variables REGULARS_*, and the shop's home is the volume /var/lib/regulars.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# PyTorch for CPUs, from PyTorch's own index. Empty: from the default index, with CUDA.
ARG TORCH_BACKEND=cpu
ENV UV_PYTHON=/opt/regulars UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /app
COPY requirements.lock pyproject.toml README.md ./
# uv stays in a folder of its own, which the last stage does not take.
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir "$(grep '^uv==' requirements.lock)" \
    && python3 -m venv --without-pip /opt/regulars
# As a constraint the lock pins every version and leaves out what only development needs.
RUN /opt/uv/bin/uv pip install ${TORCH_BACKEND:+--torch-backend $TORCH_BACKEND} \
    --constraint requirements.lock --requirement pyproject.toml --extra otel
COPY . .
# Editable: Feast reads the folder features/, and the code has the same place in every stage.
RUN /opt/uv/bin/uv pip install --no-deps --editable . && /opt/regulars/bin/python -m compileall -q .

FROM ${PYTHON_IMAGE}
# LightGBM and scikit-learn need OpenMP.
RUN apt-get update -q && apt-get install -y -q --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /var/lib/regulars --shell /usr/sbin/nologin regulars \
    && install -d -o regulars -g regulars -m 0700 /var/lib/regulars \
    && install -d -o regulars -g regulars -m 0700 /var/lib/mlflow
COPY --from=build /opt/regulars /opt/regulars
COPY --from=build /app /app
ENV PATH=/opt/regulars/bin:$PATH \
    REGULARS_HOME=/var/lib/regulars \
    REGULARS_LOG_FORMAT=json \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true
USER regulars
WORKDIR /var/lib/regulars
VOLUME ["/var/lib/regulars"]
EXPOSE 3000
# Ready once there is a champion: before the first nightly run the server answers 503 and says what is missing.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/readyz', timeout=4)"]
ENTRYPOINT ["regulars"]
CMD ["serve", "--host", "0.0.0.0"]
