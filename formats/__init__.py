"""Readers and writers of the field's files, the only place with -1, "N/A" or 1-based indices.

A distribution adds a format with an entry point of the group `stepgold.formats` that names a
`FileFormat`; `formats/field/` has one in each file to start from.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
