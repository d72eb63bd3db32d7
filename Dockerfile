# The worker as an image: no compiler, no package index and no root at run time.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY producers ./producers
COPY worker ./worker
# The environment has no pip of its own: the base image's pip fills it, and stays behind.
RUN pip wheel --no-deps --wheel-dir dist . \
 && python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --constraint constraints.txt "$(echo dist/*.whl)[worker,dashboard,otel]"

FROM python:3.13-slim
RUN groupadd --gid 10001 worker \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin worker
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["worker", "check"]
ENTRYPOINT []
CMD ["worker", "run"]
