// The parts of a CUDA device that torch looks for in C++. Its CPU build has none, and autograd refuses a device
// without a guard. Nothing computes here: tensors of the device are Python objects (device.py).

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device, c10::DeviceIndex, c10::DeviceType, c10::Stream;

constexpr DeviceType CUDA = DeviceType::CUDA;

// A generator that says it is the device's. Its numbers are those of the CPU's generator of the same seed.
struct Generator final : at::CPUGeneratorImpl {
  Generator() { device_ = Device(CUDA, 0); }
  // Copies and pickles of a device's generator hold an offset, which the CPU's refuses to tell.
  uint64_t get_offset() const override { return 0; }
  void set_offset(uint64_t) override {}
};

// One device and one stream: whoever asks for another gets these.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<CUDA> {
  Device getDevice() const override { return Device(CUDA, 0); }
  Device exchangeDevice(Device) const override { return getDevice(); }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream getDefaultStream(Device device) const override { return getStream(device); }
  Stream exchangeStream(Stream stream) const noexcept override { return stream; }
};

struct Hooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  at::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<Generator>(); }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

// torch has made its hooks, which refuse everything, when it was imported, and keeps a reference to them: ours are
// made in the same place of memory, which is safe because they hold no data of their own.
static_assert(sizeof(Hooks) == sizeof(at::CUDAHooksInterface));
const auto* hooks = new (const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks())) Hooks();

}  // namespace
