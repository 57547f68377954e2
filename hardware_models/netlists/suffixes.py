"""Endings of files that are read as netlists, and where their circuits compute: told without torch."""

SUFFIXES = (".cir", ".net", ".sp", ".spice", ".ckt")
"""In lower case; a file of one of them is a circuit wherever a system is named."""
ON_HOST = (
    "solves its equations by sparse factorisations and compiled loops there (ResistiveNetwork computes on any "
    "device)"
)
"""End of a sentence that begins with the name of the system (`registry.hosted`)."""
