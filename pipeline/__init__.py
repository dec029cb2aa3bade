"""The run time: how video flows. `from pipeline.api import run` is the door for Python."""
