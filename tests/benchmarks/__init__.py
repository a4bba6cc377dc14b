"""Speed and memory beside a reference in the same run; scripts, not tests: `python tests/benchmarks/NAME.py`."""
