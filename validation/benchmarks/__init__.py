"""Side-by-side measurements, each run as `python -m validation.benchmarks.NAME` or `physics-ep bench NAME`."""
