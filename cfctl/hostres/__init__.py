"""The host's network for the instances: bridges, taps, addresses, NAT, DHCP.

``desired`` says how it should be, ``observed`` reads how it is, ``plan`` is the difference with a reason per change,
``apply`` carries it out. :mod:`cfctl.hostres.host` ties them together: set up, tear down, tell the status.
"""
