"""Where things lie: tests find the project's files from here, so that a test file can move."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Root of the checkout."""
