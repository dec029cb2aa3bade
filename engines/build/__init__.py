"""Makes the artefacts that engines run, `<target>_from_<source>`. Needs the extras `torch` and `build`; the run time does not."""
