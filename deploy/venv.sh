#!/bin/sh
# Installs a lock into .venv, or into the folder named:  deploy/venv.sh requirements.lock [FOLDER]
#
# Does nothing if it is installed already. Otherwise deploy/venv.py does the work, with the newest working Python (3.11
# or later) on the PATH, or the one named by PYTHON. Tries each candidate, so it skips shims that do not run, older
# Pythons and those without their venv module. Needs only sh.
set -eu
cd "$(dirname "$0")/.."
lock=$1
venv=${2:-.venv}

if cmp -s "$lock" "$venv/installed/$lock" && [ ! -e "$venv/unfinished" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

# Exits 0 if this Python can be used, 3 if only its venv module is missing, with another status if it can't.
usable() {
    "$1" - 2>/dev/null <<'PROBE'
import sys
if sys.version_info < (3, 11) or sys.version_info.releaselevel != "final" or sys.implementation.name != "cpython":
    sys.exit(2)
try:
    import ensurepip, ssl, venv
except ImportError:
    sys.exit(3)
PROBE
}

# Every python3.N on the PATH as "N path", newest version first, and within a version in the PATH's order.
candidates() {
    printf '%s\n' "$PATH" | tr ':' '\n' | while IFS= read -r folder; do
        for path in "${folder:-.}"/python3.*; do
            minor=${path##*/python3.}
            case $minor in '' | *[!0-9]*) continue ;; esac
            [ -x "$path" ] && printf '%s %s\n' "$minor" "$path"
        done
    done | sort -s -k1,1nr
    command -v python3 | sed 's/^/0 /'
}

if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" || {
        echo "PYTHON=$PYTHON cannot be used: Orderflow needs CPython 3.11 or newer that runs and has its venv module." >&2
        exit 1
    }
    exec "$PYTHON" deploy/venv.py "$lock" "$venv"
fi

without_venv=
while read -r _ path; do
    [ -n "$path" ] || continue
    status=0
    usable "$path" || status=$?
    case $status in
        0) exec "$path" deploy/venv.py "$lock" "$venv" ;;
        3) without_venv=${without_venv:-$path} ;;
    esac
done <<LIST
$(candidates)
LIST

if [ -n "$without_venv" ]; then
    echo "$without_venv lacks its venv module; install it: sudo apt install python3-venv" >&2
else
    echo 'Orderflow needs Python 3.11 or newer; install it (macOS: brew install python;' \
        'Debian, Ubuntu: sudo apt install python3 python3-venv; Fedora: sudo dnf install python3).' >&2
fi
exit 1
