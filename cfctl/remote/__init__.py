"""The client of a relay: which there are, a channel that is pinned to one, and what the verbs ask through it.

It speaks to the daemon by the protocol alone.
"""
