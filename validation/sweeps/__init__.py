"""Sweeps over device imperfections: which points, how each is measured, by which processes, kept where.

Start with `tolerances`, whose `tolerance` runs a sweep and returns the table of `table`.
"""
