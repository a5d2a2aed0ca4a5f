"""What both ends of a relay need: bytes that are carried between two places, and errors that cross the wire."""
