"""The relay: devices of this host, served to callers here and elsewhere.

A front of our own takes connections and bounds them (``front``); behind it gRPC answers, after the gate has asked who
calls and whether he may (``gate``). Whatever reads or changes a device runs as the device's user, in a child that is
``cfctl`` itself (``worker``): the daemon never touches a user's files.
"""
