"""PRM step scores: families (prompt, marker, read-out) and the engine that runs them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
