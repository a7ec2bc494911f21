"""Lambda's package: the same files give the same bytes, and a package over Lambda's limits is refused."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.aws_template import FOLDER


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """deploy/aws/package.py, which is in no package, loaded by its path. It does not compile here."""
    specification = importlib.util.spec_from_file_location("package", FOLDER / "package.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "compile_all", lambda _folder: None)
    return module


def installed(folder: Path, *names: str) -> Path:
    for name in (*names, "botocore/data/sqs/service.json", "botocore/data/ec2/service.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return folder


def test_the_same_files_make_the_same_bytes_whenever_and_in_whatever_order(
    package: ModuleType, tmp_path: Path
) -> None:
    one = installed(tmp_path / "one", "b.py", "a.py", "c/d.py")
    other = installed(tmp_path / "other", "c/d.py", "a.py", "b.py")
    os.utime(other / "a.py", (0, 0))
    (other / "b.py").chmod(0o700)

    assert package.main(one, tmp_path / "one.zip") == 0
    assert package.main(other, tmp_path / "other.zip") == 0

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_it_holds_the_project_without_what_no_function_reads(package: ModuleType, tmp_path: Path) -> None:
    folder = installed(tmp_path / "task", "a/tests/test_a.py", "a/b.pyx", "a/b.so", "a-1.dist-info/METADATA")

    package.main(folder, tmp_path / "task.zip")

    held = {path.relative_to(folder).as_posix() for path in package.files(folder)}
    assert {
        "services/order/handlers.py",
        "events/worker.py",
        "chassis/settings.py",
        "ops/aws_lambda.py",
    } <= held
    assert {"a/b.so", "a-1.dist-info/METADATA", "botocore/data/sqs/service.json"} <= held
    assert not held & {"a/tests/test_a.py", "a/b.pyx", "botocore/data/ec2/service.json"}
    assert not {name.partition("/")[0] for name in held} & {"sandbox", "bench", "tests"}


def test_the_runtime_client_that_lambda_has_itself_is_taken_out_whole(
    package: ModuleType, tmp_path: Path
) -> None:
    folder = installed(tmp_path / "task", "awslambdaric/bootstrap.py", "runtime_client.so")
    record = folder / "awslambdaric-4.2.2.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("awslambdaric/bootstrap.py,sha256=x,1\nruntime_client.so,,\n", encoding="utf-8")

    package.main(folder, tmp_path / "task.zip")

    assert not [path for path in package.files(folder) if "awslambdaric" in str(path) or path.suffix == ".so"]


@pytest.mark.parametrize("limit", ["MAX_ZIPPED", "MAX_UNZIPPED"])
def test_it_is_refused_above_a_limit_of_lambda(
    package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(package, limit, 1000)

    assert package.main(installed(tmp_path / "task", "a.py"), tmp_path / "task.zip") == 1
