"""Why graphs of units compute on the CPU: told without torch, which commands that refuse a device do not import."""

UNIT_GRAPHS = "sweeps its units by compiled loops there (HopfieldNetwork computes on any device)"
"""End of a sentence that begins with the name of a class or a system (`placement.OnHost`, `registry.hosted`)."""
