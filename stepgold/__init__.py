"""StepGold: label the steps of reasoning traces and evaluate process reward models.

import stepgold

ws = stepgold.Workspace("runs/pb")
ws.import_("processbench", "gsm8k.json", dataset="pb", subset="gsm8k")
ws.score(dataset="pb", prm="hf:Qwen/Qwen2.5-Math-PRM-7B")
print(ws.evaluate(dataset="pb", labeler="prm"))
"""

from typing import Any

import lazy_loader as lazy

_attached, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first used; `__version__` is the distribution's."""
    if name == "__version__":
        from importlib.metadata import version

        return version("stepgold")
    return _attached(name)
