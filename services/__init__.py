"""The services. They never import one another: they meet in `events.contracts`."""
