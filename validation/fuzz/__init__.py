"""What the framework promises of files, processes and hostile input, tried by cases that a seeded generator draws.

`python -m validation.fuzz` runs command lines, calls, damages, kills, signals, full disks and limits of memory,
each in a process of its own, and prints a table of what was tried and what broke (docs/files.md).
"""
