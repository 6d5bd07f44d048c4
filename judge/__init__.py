"""RAG-as-a-judge: a trace and its evidence go out, verdicts with verified quotes come back."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
