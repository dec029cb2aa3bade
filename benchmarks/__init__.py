"""Measures the whole: speed as a share of what the machine could do at best, and where the rest goes. See `fer-bench --help`."""
