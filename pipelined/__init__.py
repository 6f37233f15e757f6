"""pipelined: claim events in, files and tables out, every one accounted for."""

__version__ = "0.1.0"
