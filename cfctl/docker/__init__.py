"""Devices in containers: images, containers, fleets of them, on one engine or several, never ``--privileged``.

Inside a container run ``init.py`` (its first process) and ``inside.py`` (what `cfctl docker start` starts there);
everything else runs beside the user and talks to the engine.
"""
