"""`python -m physics_ep`: the command `physics-ep`, also from a source tree that is not installed."""

from .cli import main

if __name__ == "__main__":
    main()
