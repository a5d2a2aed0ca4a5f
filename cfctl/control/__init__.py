"""One small async client per socket of a running VM, and the bridge to sync code."""
