"""Oscillators seek the largest cut of a graph; all starts are followed at once.

Prints the cut of each start and the sides of the best one, then how many of the seven edges that one lacks: 1, as
the chord closes a triangle, which has an odd number of edges.
"""

from hardware_models.oscillators.gset import WeightedGraph  # and read_gset("G14")
from hardware_models.oscillators.max_cut import max_cut

found = max_cut(WeightedGraph(6, [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0], [0, 2]]), starts=20, seed=0)
print(found.cut, found.best)  # the cut of each start, in float64, and the sides of the largest

print("edges that the best cut lacks:", 7 - float(found.cut.max()))
