"""Host packages and guest images: archives unpacked once into a cache, what is in them, and each device's view."""
