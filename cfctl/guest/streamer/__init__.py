"""``webRTC``: the embedded guest's screen for browsers, as upstream's streamer of that name is Android's.

A program of its own beside ``run_cvd``. Unlike the package's other programs it needs libraries (aiortc, PyAV,
msgspec): it runs on the Python that cfctl itself runs on.
"""
