"""Comparison with ngspice: run it, read its results, hold our voltages and gradients against its.

Start with `check`. `ngspice` runs the program, `phases` solves free and nudged phases there, `mapped` does so for
networks on the resistive substrate.
"""
