"""The dosing lab: a synthetic guideline domain with exact truth, and its tiny models."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
