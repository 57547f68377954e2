"""Figures of Hopfield networks and their circuit: settling, transients in SI units, training, early inference.

Start with `dynamics`, which draws the states, the energy and the residual of a free and two nudged phases.
"""
