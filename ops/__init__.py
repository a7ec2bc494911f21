"""Operating Orderflow: the `orderflow` command."""
