"""The workspace in the browser: pages to look at it, and expert review."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
