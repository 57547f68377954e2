"""What runs on a device: every system, oracle, training and benchmark, on the simulated one."""
