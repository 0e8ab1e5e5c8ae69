# syntax=docker/dockerfile:1
# The gateway as an image: compiled, without a root user, for a read-only root.
#
#   docker build --tag phoenixflight/gateway .
#
# Pinned: give the base's digest, as `docker buildx imagetools inspect docker.io/library/debian:12-slim` tells it:
#
#   --build-arg BASE_DIGEST=@sha256:…
#
# Without PyPI: make wheelhouse fills a folder with all that pip would fetch, to be built from on a machine that reaches none:
#
#   docker build --build-context wheelhouse=wheelhouse .
#
# Nothing here is fetched but Debian's packages and, without a wheelhouse, PyPI's.
ARG BASE=docker.io/library/debian:12-slim
ARG BASE_DIGEST=

# What pip takes instead of PyPI: nothing, unless --build-context wheelhouse says otherwise.
FROM scratch AS wheelhouse

FROM ${BASE}${BASE_DIGEST} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Versions are those of the base's release: its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates libnghttp2-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=315532800
WORKDIR /src
COPY . .
# The wheel, the environment that runs it, and what is in it (CycloneDX).  What only builds stays in /tools.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheelhouse,target=/wheelhouse \
    if ls /wheelhouse/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse; fi \
    && python3 -m venv /tools \
    && /tools/bin/pip install --quiet --upgrade pip cyclonedx-bom \
    && PYTHON=/tools/bin/python tools/compiled-wheel \
    && python3 -m venv --without-pip /opt/phoenixflight \
    && /tools/bin/pip --python /opt/phoenixflight/bin/python install --quiet "$(ls dist/*.whl)[fast,grpc,redis,kubernetes]" \
    && /tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/phoenixflight/sbom.cdx.json \
        /opt/phoenixflight/bin/python

FROM ${BASE}${BASE_DIGEST}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libnghttp2-14 python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/* /var/log/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && install -d -o 65532 -g 65532 /var/lib/phoenixflight
COPY --from=build /opt/phoenixflight /opt/phoenixflight
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="PhoenixFlight gateway" \
    org.opencontainers.image.description="Hands work from one AI agent to another: mTLS, policy, consistent hashing" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/phoenixflight/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/phoenixflight
EXPOSE 8443
STOPSIGNAL SIGTERM
# For engines that look at it; Kubernetes has probes of its own.
HEALTHCHECK --interval=20s --timeout=5s --start-period=30s CMD ["phoenixflight", "health"]
ENTRYPOINT ["phoenixflight"]
CMD ["run", "--config", "/etc/phoenixflight/config/gateway.yaml"]
