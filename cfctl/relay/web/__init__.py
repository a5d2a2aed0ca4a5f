"""Pages and endpoints over HTTP: who looks, and at what."""
