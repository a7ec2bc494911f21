#!/bin/sh
# Writes the lock files from pyproject.toml:      deploy/lock.sh [--upgrade | --upgrade-package NAME]
# or tells whether they still follow from it:     deploy/lock.sh --check
#
# Versions in a lock stay as they are unless pyproject.toml or --upgrade asks for others, so a new release on the
# index does not make a lock stale. The development lock is solved first and binds the others: all three agree.
set -eu
cd "$(dirname "$0")/.."
uv=$PWD/.venv/bin/uv
python=$PWD/.venv/bin/python

# uv does not read pip's settings, so they are handed over.
setting() { "$python" -m pip config get "$1" 2>/dev/null || true; }
: "${UV_DEFAULT_INDEX:=${PIP_INDEX_URL:-$(setting global.index-url)}}"
: "${SSL_CERT_FILE:=${PIP_CERT:-${REQUESTS_CA_BUNDLE:-$(setting global.cert)}}}"
[ -z "$UV_DEFAULT_INDEX" ] || export UV_DEFAULT_INDEX
[ -z "$SSL_CERT_FILE" ] || export SSL_CERT_FILE
[ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX="${UV_INDEX:-$PIP_EXTRA_INDEX_URL}"
[ -z "${PIP_TRUSTED_HOST:-}" ] || export UV_INSECURE_HOST="${UV_INSECURE_HOST:-$PIP_TRUSTED_HOST}"

compile() {   # LOCK, then what goes into it
    file=$1; shift
    "$uv" pip compile --quiet --python "$python" --universal --generate-hashes --no-header --no-emit-index-url \
        --annotation-style line --output-file "$file" "$@" pyproject.toml >/dev/null
}
compile_all() {
    compile requirements-dev.lock --all-extras --group dev "$@"
    compile requirements.lock --extra embedded --constraint requirements-dev.lock "$@"
    compile requirements-image.lock --extra stripe --constraint requirements-dev.lock "$@"
}

if [ "${1:-}" != --check ]; then
    compile_all "$@"
    exit
fi

if grep -n '://' requirements*.lock; then
    echo 'A lock file names an address (above): make the locks with `make lock`.' >&2
    exit 1
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp pyproject.toml requirements*.lock "$copy"
cd "$copy"
compile_all
stale=0
for lock in requirements*.lock; do
    diff -u "$OLDPWD/$lock" "$lock" || stale=1
done
[ "$stale" = 0 ] || { echo 'The locks do not follow from pyproject.toml: run `make lock`.' >&2; exit 1; }
