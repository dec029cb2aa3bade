"""Where results go. One file per kind of output; each opens its output when the first frame arrives."""
