"""Screens: one connection to each device, passed on to all who look at it."""
