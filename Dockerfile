# syntax=docker/dockerfile:1
# The image of the sidecar. Build it for the machine that it runs on, or for several (amd64, arm64):
#   docker build --tag ai-sidecar .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag ai-sidecar .
# The last stage holds no shell, no package index and no build tool: Debian's Python, and what requirements.txt locks.
# Of the packages it takes the newest that Debian has fixed, so their versions are not pinned here.

FROM docker.io/library/debian:bookworm-slim AS debian
ENV DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008,DL3009
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libpython3.11-stdlib python3.11-minimal


# What is installed: the locked packages by their hashes, the sidecar by the locked builder, all of it compiled.
FROM debian AS packages
# hadolint ignore=DL3008
RUN apt-get install --yes --no-install-recommends binutils python3-pip python3.11-venv
WORKDIR /src
RUN python3.11 -m venv --without-pip /opt/build \
 && python3.11 -m venv --without-pip /opt/sidecar
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
COPY requirements.txt requirements-build.txt ./
RUN pip --python /opt/build/bin/python install --require-hashes --only-binary :all: --requirement requirements-build.txt \
 && pip --python /opt/sidecar/bin/python install --require-hashes --only-binary :all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
RUN /opt/build/bin/hatchling build --target wheel --directory /dist \
 && pip --python /opt/sidecar/bin/python install --no-deps --no-index /dist/*.whl \
 && find /opt/sidecar -name '*.so*' -exec strip --strip-unneeded {} + \
 && find /opt/sidecar/lib \( -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' \) -delete \
 && find /opt/sidecar/bin -type f ! -name sidecar -delete \
 && python3.11 -m compileall -q --invalidation-mode unchecked-hash /opt/sidecar/lib


# The files of a few Debian packages, and nothing else. /var/lib/dpkg/status.d tells scanners which packages they are.
FROM debian AS system
WORKDIR /debs
RUN mkdir --parents /slim/var/lib/dpkg/status.d /slim/etc/ssl/certs /slim/proc /slim/sys /slim/dev \
 && apt-get download base-files libbz2-1.0 libc6 libcrypt1 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-minimal \
      libpython3.11-stdlib libssl3 libstdc++6 libuuid1 netbase python3.11-minimal tzdata zlib1g \
 && for deb in *.deb; do \
      dpkg-deb --extract "$deb" /slim \
      && dpkg-deb --field "$deb" > "/slim/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)" || exit 1; \
    done \
 && cp /etc/ssl/certs/ca-certificates.crt /slim/etc/ssl/certs/ \
 && rm -rf /slim/usr/share/doc /slim/usr/share/man /slim/usr/share/lintian /slim/usr/lib/*-linux-gnu/gconv \
      /slim/usr/lib/python3.11/lib2to3 /slim/usr/lib/python3.11/pydoc_data /slim/usr/share/zoneinfo/right \
 && echo 'sidecar:x:10001:10001::/var/lib/sidecar:/none' > /slim/etc/passwd \
 && echo 'sidecar:x:10001:' > /slim/etc/group \
 && install --directory --owner 10001 --group 10001 /slim/var/lib/sidecar \
 && install --directory --mode 1777 /slim/tmp \
 && python3.11 -m compileall -q --invalidation-mode unchecked-hash -s /slim /slim/usr/lib/python3.11


FROM scratch
LABEL org.opencontainers.image.title="ai-sidecar" \
      org.opencontainers.image.description="A caching proxy beside every application pod that makes AI traffic cheap, fast and dependable" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=system /slim /
COPY --from=packages /opt/sidecar /opt/sidecar
# kubelet and Prometheus ask at the health port from outside of the pod; calls are taken on loopback only.
ENV PATH=/opt/sidecar/bin \
    LANG=C.UTF-8 \
    HOME=/var/lib/sidecar \
    XDG_STATE_HOME=/var/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SIDECAR_HEALTH_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/sidecar
EXPOSE 7491
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/opt/sidecar/bin/sidecar", "wait", "--for", "3s"]
ENTRYPOINT ["/opt/sidecar/bin/sidecar"]
CMD ["run", "--on-bad-config", "passthrough"]
