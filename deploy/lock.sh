#!/bin/sh
# Writes the lock files from pyproject.toml:      deploy/lock.sh [--upgrade | --upgrade-package NAME]
# or checks that they still match it:             deploy/lock.sh --check
#
# Locked versions stay unless pyproject.toml or --upgrade asks for others, so a new release on the index does not make
# a lock stale. The development lock is solved first, and the locks of the product use its versions. So do the
# benchmark's peers. The linters of the AWS template have a lock of their own, because the SAM translator pins pydantic.
set -eu
cd "$(dirname "$0")/.."
uv=$PWD/.venv/bin/uv
python=$PWD/.venv/bin/python
peers=bench/peers/requirements

. deploy/index.sh

compile() {   # LOCK OPTIONS... SOURCE
    file=$1; shift
    "$uv" pip compile --quiet --python "$python" --universal --generate-hashes --no-header --no-emit-index-url \
        --annotation-style line --output-file "$file" "$@" >/dev/null
}
compile_part() { compile "$@" --constraint requirements-dev.lock pyproject.toml; }
compile_all() {
    compile requirements-dev.lock "$@" --all-extras --group dev pyproject.toml
    compile_part requirements.lock "$@" --extra embedded --group pyproject.toml:sandbox
    compile_part requirements-image.lock "$@" --extra stripe
    compile_part requirements-lambda.lock "$@" --extra stripe --extra aws
    compile requirements-sam.lock "$@" --group pyproject.toml:sam
    compile "$peers.lock" "$@" --constraint requirements-dev.lock "$peers.in"
}

if [ "${1:-}" != --check ]; then
    compile_all "$@"
    exit
fi

if grep -n '://' requirements*.lock "$peers.lock"; then
    echo 'A lock file contains an address (above). Write the locks with `make lock`.' >&2
    exit 1
fi
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/bench/peers"
cp pyproject.toml requirements*.lock "$copy"
cp "$peers.in" "$peers.lock" "$copy/bench/peers"
cd "$copy"
compile_all
stale=0
for lock in requirements*.lock "$peers.lock"; do
    diff -u "$OLDPWD/$lock" "$lock" || stale=1
done
[ "$stale" = 0 ] || { echo 'A lock does not match pyproject.toml or bench/peers/requirements.in (above). Run `make lock`.' >&2; exit 1; }
