"""Devices in containers: images, containers, fleets of them, on one engine or several, never ``--privileged``.

The code inside a container is ``init.py`` (its first process) and ``inside.py`` (what `cfctl docker start` runs there);
everything else runs beside the user and talks to the engine.
"""
