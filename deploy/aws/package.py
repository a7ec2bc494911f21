"""Builds Lambda's package from installed dependencies: `package.py FOLDER ZIP`. Started by `package.sh`.

The same lock and code give the same bytes: entries are sorted, with fixed times and modes. The code is
compiled. A package that is too large for Lambda is refused.
"""

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ("libs/events", "libs/chassis", "services", "ops")
LEFT_OUT = ("awslambdaric", "simplejson", "snapshot_restore_py")
"""AWS's runtime client and its own dependencies, which Lambda provides."""
AWS_SERVICES = ("secretsmanager", "sns", "sqs", "sts")
"""The AWS services whose descriptions stay in botocore, of some four hundred."""
REFUSE = {"__pycache__", "tests", "test", "bin", "testing"}
REFUSE_SUFFIXES = {".c", ".cpp", ".h", ".pxd", ".pyi", ".pyx"}

MAX_ZIPPED = 50 * 1024 * 1024
MAX_UNZIPPED = 250 * 1024 * 1024


def main(folder: Path, package: Path) -> int:
    """Build the package and print its size; return the exit status."""
    for distribution in LEFT_OUT:
        uninstall(folder, distribution)
    prune(folder)
    for name in PROJECT:
        source = ROOT / name
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    compile_all(folder)
    write(folder, package)
    zipped, unzipped = package.stat().st_size, sum(path.stat().st_size for path in files(folder))
    say(f"{package}: {megabytes(zipped)} zipped, {megabytes(unzipped)} unzipped")
    if zipped > MAX_ZIPPED or unzipped > MAX_UNZIPPED:
        say(f"Too large: Lambda allows {megabytes(MAX_ZIPPED)} and {megabytes(MAX_UNZIPPED)}.")
        return 1
    return 0


def uninstall(folder: Path, distribution: str) -> None:
    """Remove the files that the distribution's RECORD lists."""
    for record in folder.glob(f"{distribution}-*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as rows:
            paths = [folder / row[0] for row in csv.reader(rows)]
        for path in paths:
            path.unlink(missing_ok=True)
        shutil.rmtree(record.parent, ignore_errors=True)


def prune(folder: Path) -> None:
    """Remove files that no function reads: tests, C sources, descriptions of other AWS services."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and path.name in REFUSE:
            shutil.rmtree(path)
        elif path.suffix in REFUSE_SUFFIXES or path.name in {"RECORD", "REQUESTED", "INSTALLER", ".lock"}:
            path.unlink()
    for description in (folder / "botocore" / "data").iterdir():
        if description.is_dir() and description.name not in AWS_SERVICES:
            shutil.rmtree(description)


def compile_all(folder: Path) -> None:
    """Compile for Lambda's Python, because functions can't write byte code themselves."""
    options = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-p", "/var/task", "-s"]
    for python in (sys.executable, "python3.13"):
        if succeeds(python, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 13))"):
            subprocess.run([python, *options, folder, folder], check=True)  # noqa: S603 (own)
            return
    mount = f"{folder.resolve()}:/package"
    docker = ["docker", "run", "--rm", "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}"]
    image = os.environ.get("PYTHON_IMAGE") or "python:3.13-slim"
    if not succeeds(*docker, "--volume", mount, image, "python", *options, "/package", "/package"):
        sys.exit("Compiling the package needs Python 3.13, on the PATH or in Docker. Neither works here.")


def succeeds(*command: str) -> bool:
    """Return whether the command exists and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 (own)
    except OSError:
        return False


def files(folder: Path) -> Iterator[Path]:
    """Return every file, sorted."""
    return iter(sorted(path for path in folder.rglob("*") if path.is_file()))


def write(folder: Path, package: Path) -> None:
    """Write the archive. Its bytes depend on the files' names and contents only."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, so that the next line sets its mode
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def megabytes(size: int) -> str:
    """Format a size."""
    return f"{size / 1024 / 1024:.1f} MiB"


def say(line: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
