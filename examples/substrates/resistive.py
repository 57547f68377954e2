"""A network of resistors and ideal diodes learns handwritten digits from nothing but the voltages across its parts.

Prints the test error before training and after each epoch, and the residual of the last step's nudged phases, in
amperes. The last number is the final test error in per cent, below 15.
"""

import torch

from hardware_models import ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.data import digits

torch.manual_seed(0)
data = digits()
train_x, test_x = data.train_x.flatten(1), data.test_x.flatten(1)
network = ResistiveNetwork([64, 64, 10], diode="ideal", input_gain=0.5)  # volts; cells start below 13 uS
targets = torch.eye(10) / 128  # volts: each layer averages, so that outputs are some hundredth of the inputs
ep = EquilibriumPropagation(SquaredError(), beta=2e-5, tolerance=1e-7)  # siemens, from each output to its target
sources = [p for name, p in network.named_parameters() if name.endswith("bias")]  # of currents, in amperes
cells = [p for name, p in network.named_parameters() if name.endswith("conductance")]
optimizer = torch.optim.Adam([{"params": cells, "lr": 2e-7}, {"params": sources, "lr": 1.5e-9}])


def test_error() -> float:
    outputs = network.outputs(relax(network, test_x).require().state)
    return 100 * float((outputs.argmax(1) != data.test_y).float().mean())


print("before training", test_error(), "%")
for epoch in range(4):
    for rows in torch.randperm(len(train_x)).split(32):
        optimizer.zero_grad()
        step = ep.backward(network, train_x[rows], targets[data.train_y[rows]])
        optimizer.step()
        network.constrain()  # no conductance is negative
    error = test_error()
    print("epoch", epoch + 1, "test error", error, "%")
print("residual", max(float(phase.residual.max()) for phase in step.equilibria), "A")
print("test error in per cent", error)
