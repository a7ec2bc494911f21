# Sourced in the project's folder. Gives uv pip's configuration, which uv does not read itself.
setting() { .venv/bin/python -m pip config get "$1" 2>/dev/null || true; }
: "${UV_DEFAULT_INDEX:=${PIP_INDEX_URL:-$(setting global.index-url)}}"
: "${SSL_CERT_FILE:=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-$(setting global.cert)}}}"
[ -z "$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX
[ -z "$SSL_CERT_FILE" ] || export SSL_CERT_FILE
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
[ -z "${PIP_TRUSTED_HOST:-}" ] || export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$PIP_TRUSTED_HOST}"
