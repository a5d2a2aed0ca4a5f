"""The messages and stubs of ``proto/cfctl/v1``, written by ``make protos``; nothing here is written by hand but this."""
