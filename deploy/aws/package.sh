#!/bin/sh
# Builds dist/lambda.zip, the package of every function:  deploy/aws/package.sh [arm64 | x86_64]
#
# Dependencies come from the hashed lock, as wheels for Lambda's platform; uv evaluates the lock's markers for it.
# deploy/aws/package.py does the rest.
set -eu
cd "$(dirname "$0")/../.."
. deploy/index.sh
case ${1:-arm64} in
    arm64) platform=aarch64-manylinux_2_28 ;;
    x86_64) platform=x86_64-manylinux_2_28 ;;
    *) echo "ARCH=$1 is no architecture of Lambda: choose arm64 or x86_64." >&2; exit 1 ;;
esac

rm -rf dist/lambda dist/lambda.zip
.venv/bin/uv pip install --quiet --target dist/lambda --python-version 3.13 --python-platform "$platform" \
    --no-build --require-hashes --no-deps --link-mode copy --requirement requirements-lambda.lock
exec .venv/bin/python deploy/aws/package.py dist/lambda dist/lambda.zip
