# The first stage builds the wheel and installs it, with everything it needs, into one folder.
# To pin the base by digest: --build-arg PYTHON=python@sha256:...
ARG PYTHON=python:3.12-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY policies ./policies
COPY broker ./broker
# The image gets no pip of its own, and nothing from an index is built here: wheels alone.
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /dist . \
    && python -m venv --without-pip /opt/broker \
    && python -m pip --python /opt/broker/bin/python install --no-cache-dir --only-binary :all: \
        "$(ls /dist/*.whl)[server]"

# The second stage holds that folder and nothing that made it. It runs with a read-only root:
#   docker run --read-only --tmpfs /tmp -v broker-data:/var/lib/broker \
#     -v ./broker.yaml:/etc/broker/broker.yaml:ro -p 8080:8080 -p 8443:8443 delegation-broker
FROM ${PYTHON}
LABEL org.opencontainers.image.title="delegation-broker" \
      org.opencontainers.image.description="A token exchange and delegation broker for the Model Context Protocol" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 65532 broker \
    && useradd --system --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/broker \
        --shell /usr/sbin/nologin broker \
    && install --directory --owner=65532 --group=65532 --mode=0700 /var/lib/broker
COPY --from=build /opt/broker /opt/broker
# The environment comes before the file, so data_dir is this one unless the container is told else.
ENV BROKER_CONFIG=/etc/broker/broker.yaml \
    BROKER_DATA_DIR=/var/lib/broker \
    PATH="/opt/broker/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/broker
VOLUME ["/var/lib/broker"]
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["broker", "health"]
ENTRYPOINT ["broker"]
CMD ["serve"]
