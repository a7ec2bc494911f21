#!/bin/sh
# Runs `docker compose`, and passes pip's configuration on to the image's build.
#
# Plain `docker compose` passes on variables of the environment (PIP_INDEX_URL, HTTPS_PROXY, SSL_CERT_FILE, ...). This
# script adds settings from pip's configuration files, and lets the build reach an index or a proxy on this machine.
set -eu
cd "$(dirname "$0")/.."

pass_on() {
    configured=$(python3 -m pip config list 2>/dev/null </dev/null || true)
    : "${PIP_INDEX_URL:=$(remote "$(setting index-url)")}"
    : "${PIP_EXTRA_INDEX_URL:=$(remote "$(setting extra-index-url)")}"
    : "${PIP_TRUSTED_HOST:=$(setting trusted-host)}"
    : "${PIP_CERT:=${SSL_CERT_FILE:-${REQUESTS_CA_BUNDLE:-$(setting cert)}}}"
    : "${HTTPS_PROXY:=${https_proxy:-$(setting proxy)}}"
    case "$PIP_INDEX_URL $PIP_EXTRA_INDEX_URL $HTTPS_PROXY ${HTTP_PROXY:-} ${http_proxy:-} " in
        *[/@]localhost[:/\ ]* | *[/@]127.[0-9]*) : "${BUILD_NETWORK:=host}"; export BUILD_NETWORK ;;
    esac
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_CERT HTTPS_PROXY; do
        eval "value=\$$name"
        if [ -n "$value" ]; then export "${name?}"; else unset "$name"; fi
    done
}

setting() { printf '%s\n' "$configured" | sed -n "s/^global\.$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g'; }

remote() {   # keeps the addresses that the build can reach, which excludes folders of this machine
    for address in $1; do
        case $address in http://* | https://*) printf '%s ' "$address" ;; esac
    done | sed 's/ $//'
}

case " $* " in *' up '* | *' build '*) pass_on ;; esac
exec docker compose "$@"
