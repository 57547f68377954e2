"""A CUDA device that is simulated on the CPU: device code runs in CI, and what it costs is counted.

    with SimulatedGpu() as gpu:  # torch.cuda.is_available() is True in here
        system, x, y = system.to("cuda"), x.to("cuda"), y.to("cuda")
        with gpu.counting() as counts:
            ep.backward(system, x, y)
    print(counts.launches, counts.uploads, counts.peak_bytes)
    print(counts.table())  # who made the host wait, by file and line

Tests take the fixture `gpu` of tests/conftest.py in place of the first line.

What is simulated. A tensor on "cuda" says that it is on cuda:0, and holds an ordinary CPU tensor inside, on
which the CPU's kernels compute; so numbers are equal to the CPU's. What a GPU refuses is refused with torch's
own error and in its words: CPU tensors among device tensors, `.numpy()`, a generator of the other device,
products of integers, linear algebra in half precision, more memory than there is. Parameters keep their
identity in `Module.to`, autograd and autocast take the device's ways, and random numbers without a generator
come from a generator of the device.

What is counted (`Counts`). Launches: operators that are no views, one kernel each, which is a lower bound, as a
GPU splits some operators into several kernels. Waits: moments at which the host must wait for the device, with
their kind, operator and place in the sources. Uploads: copies from the host to the device. Work on the host:
operators on large CPU tensors. Bytes: live storages in units of 512, as torch's allocator rounds them.

What is not simulated. There are no streams and events are wall-clock times, so that nothing overlaps; one
device, no NCCL; no sparse tensors, no CUDA graphs, no torch.compile; the numerics of a GPU's kernels (TF32, the
order of sums, atomics, its random numbers) and the algorithms of cuDNN and cuBLAS with their workspaces;
fragmentation of memory. A test that passes here says that device code can run, and what it asks of the device;
never how fast that is.

The simulation needs private interfaces of torch. It is made for the CPU build of the version that
constraints.txt pins, and for a C++ compiler (`CXX`, default c++): `install` raises `UnavailableError`
elsewhere, and tests are skipped.
"""

from tests.support.simulated_gpu.counts import Counts as Counts
from tests.support.simulated_gpu.device import DeviceTensor as DeviceTensor
from tests.support.simulated_gpu.device import SimulatedGpu as SimulatedGpu
from tests.support.simulated_gpu.shim import UnavailableError as UnavailableError
from tests.support.simulated_gpu.shim import install as install
