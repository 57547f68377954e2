"""Energy systems and their training by equilibrium propagation."""
