"""Makes the packages: `make deb`, `make rpm`, or `python -m tools.packages deb|rpm [TARGET]`."""
