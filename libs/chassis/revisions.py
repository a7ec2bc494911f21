"""The revision of its schema that a service needs. Found without Alembic, which would slow every start."""

from importlib.resources import files


def history_of(service: str) -> str:
    """The place of a service's migrations, as `package:folder`."""
    return f"services.{service}:migrations"


def head(history: str) -> str:
    """The last revision of a history, which this version of the code needs.

    File names begin with their revision, such as `0001` in `0001_orders.py`.
    """
    package, _, folder = history.partition(":")
    versions = files(package).joinpath(folder, "versions").iterdir()
    return max(version.name for version in versions if version.name.endswith(".py")).partition("_")[0]
