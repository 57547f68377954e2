"""Additions to physics-ep, found by the entry points of this package."""
