"""A viewer without a window, for scripts: it speaks to a streamer as a browser does."""
