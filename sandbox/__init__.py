"""What Orderflow is tried with: `python -m sandbox.demo` and `python -m sandbox.stripe`.

Production needs nothing of it, and neither the wheel nor the services' image holds it.
"""
