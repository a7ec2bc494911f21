"""Tools to try Orderflow with: `python -m sandbox.demo` and `python -m sandbox.stripe`.

Production needs neither, and neither the wheel nor the services' image holds them.
"""
