"""Where frames come from: files, cameras, streams, pictures, the demo clip. `uri.open_source` is the only door needed."""
