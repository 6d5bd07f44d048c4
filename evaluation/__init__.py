"""Evaluation of labelers: protocols, measures with intervals, comparisons and reports.

A distribution adds a protocol with an entry point of the group `stepgold.protocols` that names a
`Protocol`; each file of `evaluation/protocols/` has one to start from.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
