"""The services' image is the product; the sandbox's holds the sandbox too."""

import subprocess

from tests.e2e.stack import Stack

PRODUCT = {"libs", "ops", "requirements-image.lock", "services"}


def in_app(image: str) -> set[str]:
    """The files and folders of /app, where the code is."""
    listing = ("docker", "run", "--rm", "--network", "none", image, "ls", "-A", "/app")
    return set(subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split())


def test_the_services_image_holds_the_product_and_nothing_else(stack: Stack) -> None:
    assert in_app(stack.image) == PRODUCT


def test_the_sandbox_is_in_an_image_of_its_own(stack: Stack) -> None:
    stack.compose("--progress", "plain", "build", "stripe", seconds=900)
    assert in_app(stack.sandbox_image) == PRODUCT | {"sandbox"}
