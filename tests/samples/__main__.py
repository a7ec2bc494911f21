"""Writes the samples of version 2 anew: `python -m tests.samples`."""

from tests.samples import VERSION_2, indented
from tests.samples.present import EVENTS

if __name__ == "__main__":
    for name, event in EVENTS.items():
        (VERSION_2 / f"{name}.json").write_bytes(indented(event))
