"""Devices on this host: launched from a host package, watched, stopped, removed.

The code here does not know which host package it has: upstream's and the embedded one are driven alike.
"""
