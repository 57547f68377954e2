"""Element laws, each written once over a namespace: torch runs them for layers, numba compiles them for graphs.

`couplings` holds the couplings of units, whose laws stand in `physics_ep.units`; `elements` two-terminal elements.
`compiled` is the one door to numba: it compiles the laws and keeps compiled code in a folder named by the hash of
all files here, and of that one.
"""
