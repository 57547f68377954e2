"""Trained networks that ship with the package: start with `zoo_network(name)`, and `zoo()` for what there is.

index.json holds an entry a network: its file, sha256, training and errors. To add one, train it and call
`add_to_zoo` (networks of CIFAR-10: `python -m validation.benchmarks.zoo_training`). Where a command takes a SYSTEM
or NETWORK, or weights, it takes these names too. Files are in the format safetensors, with the config and errors in
them; those that are too large to ship come from PHYSICS_EP_ZOO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .networks import add_to_zoo as add_to_zoo
    from .networks import zoo as zoo
    from .networks import zoo_network as zoo_network
    from .networks import zoo_weights as zoo_weights
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {"add_to_zoo": "networks", "zoo": "networks", "zoo_network": "networks", "zoo_weights": "networks"},
    )
