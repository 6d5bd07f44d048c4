"""Evidence: guideline documents, passages, indexes, search, and packing into a token budget."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
