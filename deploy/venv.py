"""Make `.venv`, or the folder named, from a lock file: `python3 deploy/venv.py requirements.lock [FOLDER]`.

`deploy/venv.sh` starts it with the interpreter for the new environment. It uses the standard library only.

The environment holds the lock's packages, each checked by its hash, and `.venv` finds the project's own in
this checkout. Concurrent calls take turns. The next call replaces an environment that is incomplete or whose
interpreter is gone. pip does the installing, so its configuration (index, proxy, certificates) applies.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECTS_OWN = ".venv"
FOLDER = sys.argv[2] if len(sys.argv) > 2 else PROJECTS_OWN
VENV = ROOT / FOLDER
PYTHON = VENV / "bin" / "python"
UNFINISHED = VENV / "unfinished"
INSTALLED = VENV / "installed"
SUPERSET = "requirements-dev.lock"


def main(lock_name: str) -> None:
    """Install the named lock into the environment, which is made first if it is missing or broken."""
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # released when the process ends, however it ends
    lock = (ROOT / lock_name).read_bytes()
    if not works():
        make()
    if not holds(lock_name, lock):
        install(lock_name)
        remember(lock_name, lock)


def works() -> bool:
    """Tell whether the environment is complete and its interpreter still runs."""
    if UNFINISHED.exists() or not PYTHON.exists():
        return False
    return succeeds(PYTHON, "-c", "import pip, sys; sys.exit(sys.version_info < (3, 11))")


def make() -> None:
    """Make an empty environment in which the project's packages are found."""
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"Making {FOLDER} with Python {version} ({sys.executable})")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    run(sys.executable, "-m", "venv", VENV)
    UNFINISHED.unlink()


def holds(lock_name: str, lock: bytes) -> bool:
    """Tell whether this very lock is installed."""
    copy = INSTALLED / lock_name
    return copy.exists() and copy.read_bytes() == lock


def install(lock_name: str) -> None:
    """Install the lock's packages, each with the hash that the lock names."""
    say(f"Installing {lock_name} (once, about a minute)")
    UNFINISHED.touch()
    run(PYTHON, "-m", "pip", "install", "-qq", "--require-hashes", "--requirement", lock_name)
    if FOLDER == PROJECTS_OWN:
        link_project()
    UNFINISHED.unlink()


def link_project() -> None:
    """Put the checkout on the environment's path, and the `orderflow` command beside its Python.

    Never `services/` itself: there `services/email` would hide the standard library's `email`.
    """
    (packages,) = VENV.glob("lib/python3.*/site-packages")
    root = os.path.relpath(ROOT, packages)  # so the checkout may be moved
    (packages / "orderflow.pth").write_text(f"{root}\n{root}/libs\n", encoding="utf-8")
    command = VENV / "bin" / "orderflow"
    shutil.copyfile(ROOT / "deploy" / "orderflow", command)
    command.chmod(0o755)


def remember(lock_name: str, lock: bytes) -> None:
    """Record the installed lock. The development lock includes requirements.lock."""
    shutil.rmtree(INSTALLED, ignore_errors=True)
    copy = INSTALLED / lock_name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(lock)
    if lock_name == SUPERSET:
        shutil.copyfile(ROOT / "requirements.lock", INSTALLED / "requirements.lock")


def run(*command: str | Path) -> None:
    """Run one step of the installation and give up when it fails."""
    if not succeeds(*command):
        sys.exit("Installing failed: the reason is above. Another Python: PYTHON=python3.13 make …")


def succeeds(*command: str | Path) -> bool:
    """Run a command and tell whether it succeeded. Its errors go to the terminal."""
    return subprocess.run(command, cwd=ROOT, env=environment(), check=False).returncode == 0  # noqa: S603 (own)


def environment() -> dict[str, str]:
    """The caller's settings for pip, without those that do not fit a virtual environment."""
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"} | os.environ | {"PIP_USER": "0"}
    settings.pop("PYTHONHOME", None)
    if "SSL_CERT_FILE" in settings:  # pip before 24.2 reads only the variable of its HTTP library
        settings.setdefault("REQUESTS_CA_BUNDLE", settings["SSL_CERT_FILE"])
    return settings


def say(line: str) -> None:
    """Tell the waiting person about the current step."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"Installing failed: {error}. Files of another user in {FOLDER} are removed by that user.")
    except KeyboardInterrupt:
        sys.exit("Installing was interrupted; the next call starts it anew.")
