"""A learning circuit leaves as a subcircuit with a test bench, and is read back.

Prints its ports and how many units of each structure it has; at last the largest difference between the outputs of
the circuit and of the bench that is read back, in volts.
"""

from hardware_models import Circuit
from hardware_models.spice.bench import export_subcircuit
from hardware_models.spice.check import find_subject

subject = find_subject("learning")  # or "run.h5", "my.py:factory", "net.cir"
found = export_subcircuit("net.cir", subject)  # net.cir and net_bench.cir: ngspice -b net_bench.cir
print(found.circuit.inputs, found.circuit.outputs, [len(unit.instances) for unit in found.circuit.units])
again = Circuit.from_netlist(found.files["bench"])
volts = again.node_voltages(again.operating_point())  # in0, ..., out0, ..., and Xnet.h1 within

print(max(abs(volts[port] - v) for (port,), v in zip(found.circuit.outputs, found.found[0], strict=True)))
