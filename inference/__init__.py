"""Text models with one protocol: Gemini, OpenAI-compatible servers, local transformers."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
