"""Fuzzing of everything that parses bytes of strangers: one module per family of parsers.

Each module has `seeds()`, which gives valid inputs, and `one(data)`, which parses one input and returns, or raises
what is a finding. `python -m fuzz.run tars --seconds 300` runs one of them under atheris; tests/safety runs them
briefly, and with hypothesis.
"""

FAMILIES = ("checkpoints", "fields", "indexes", "interop", "lists", "names", "pages", "states", "tables", "tars")
"""The modules."""
