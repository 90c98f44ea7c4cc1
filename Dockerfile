# syntax=docker/dockerfile:1
# The gateway as an image; how to run it is in docs/deploy.md.
#   docker build -t claude-gateway .
#   docker run -p 8080:8080 -e CLIENT_API_KEYS=… -e GEMINI_API_KEYS=… -v state:/var/lib/claude-gateway claude-gateway
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gateway
WORKDIR /src
# The dependencies first: a layer that only a change of pyproject.toml makes anew.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir app && touch app/__init__.py && /opt/gateway/bin/pip install . && rm -r app build
COPY app app
RUN /opt/gateway/bin/pip install --no-deps --force-reinstall .

FROM python:${PYTHON_VERSION}-slim
RUN useradd --system --uid 10001 --home-dir /srv/gateway --shell /usr/sbin/nologin gateway \
    && install -d -o gateway -g gateway -m 0700 /var/lib/claude-gateway
COPY --from=build /opt/gateway /opt/gateway
WORKDIR /srv/gateway
COPY gunicorn.conf.py wsgi.py ./
# HOST lets other containers in, so a start without CLIENT_API_KEYS is refused.
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8080 \
    STATE_URL=sqlite:////var/lib/claude-gateway/state.db
USER gateway
VOLUME /var/lib/claude-gateway
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
# SIGTERM drains: give it longer than DRAIN_TIMEOUT + 10 (docker stop -t 45, stop_grace_period: 45s).
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "gunicorn.conf.py", "--worker-tmp-dir", "/dev/shm", "wsgi:app"]
