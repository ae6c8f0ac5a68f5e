# Small, not root, and content with a read-only file system:
#   docker run --read-only --cap-drop=ALL -p 8080:8080 -v ./config.toml:/config.toml:ro -e WOODPECKER_VAULT_CONFIG=/config.toml woodpecker-vault
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY woodpecker_vault woodpecker_vault
RUN python -m venv /opt/woodpecker-vault \
    && /opt/woodpecker-vault/bin/pip install --no-cache-dir . \
    && /opt/woodpecker-vault/bin/pip uninstall --yes pip

FROM python:3.13-slim
COPY --from=build /opt/woodpecker-vault /opt/woodpecker-vault
ENV PATH=/opt/woodpecker-vault/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
# For a service with TLS, or a port that only its file names, give docker run a --health-cmd of its own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/healthz' % os.environ.get('WOODPECKER_VAULT_SERVER__PORT', '8080'), timeout=2)"]
ENTRYPOINT ["woodpecker-vault"]
CMD ["serve"]
