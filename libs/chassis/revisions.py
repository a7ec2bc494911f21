"""Which revision of its schema a service needs, without Alembic: loading that would slow every start down."""

from importlib.resources import files


def history_of(service: str) -> str:
    """Where a service's migrations are, as `package:folder`."""
    return f"services.{service}:migrations"


def head(history: str) -> str:
    """The last revision of a history: the one that this version of the code needs.

    A revision is what its file's name begins with, such as `0001` of `0001_orders.py`.
    """
    package, _, folder = history.partition(":")
    versions = files(package).joinpath(folder, "versions").iterdir()
    return max(version.name for version in versions if version.name.endswith(".py")).partition("_")[0]
