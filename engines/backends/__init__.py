"""One file per runtime; `engines.select` is the only place that lists them."""
