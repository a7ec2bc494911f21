#!/bin/sh
# Installs the linters of the AWS template (requirements-sam.lock) into .venv/sam, unless they are installed. They have
# an environment of their own because the SAM translator pins pydantic.
set -eu
cd "$(dirname "$0")/../.."

if cmp -s requirements-sam.lock .venv/sam/installed.lock; then exit 0; fi
echo 'Installing requirements-sam.lock (once)' >&2
rm -rf .venv/sam
.venv/bin/python -m venv --without-pip .venv/sam
PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 .venv/bin/python -m pip --python .venv/sam/bin/python \
    install -qq --require-hashes --requirement requirements-sam.lock
cp requirements-sam.lock .venv/sam/installed.lock
