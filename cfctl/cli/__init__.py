"""The command line: each verb parses, calls one function of the core, and renders its answer."""
