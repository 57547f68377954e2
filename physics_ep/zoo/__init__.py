"""Trained networks that ship with the package: start with `zoo_network(name)`, and `zoo()` for what there is.

index.json holds an entry a network: its file, sha256, training and errors. To add one, train it
(`python -m validation.benchmarks.zoo_training`) and put file and entry here. Where a command takes a NETWORK it
takes these names too. Files are state dicts in float16, written by `torch.save`, read without any code in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .networks import zoo as zoo
    from .networks import zoo_network as zoo_network
else:
    __getattr__, __dir__, __all__ = lazy(__name__, {"zoo": "networks", "zoo_network": "networks"})
