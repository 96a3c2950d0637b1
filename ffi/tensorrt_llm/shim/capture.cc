#include "shim/capture.h"

#include <dlfcn.h>

#include <new>

// Takes the place of libnvinfer's function where TensorRT is linked in statically, as the stand-in is.
extern "C" __attribute__((weak)) void* rf_next_create_infer_runtime(void* logger, std::int32_t version) noexcept;

// A second name of the definition below, which no other library can take over: its address is always ours.
extern "C" __attribute__((visibility("hidden"), alias("createInferRuntime_INTERNAL"))) void* rf_own_create_infer_runtime(
    void* logger, std::int32_t version) noexcept;

namespace rollforge::shim {
namespace {

thread_local Capture* current_capture = nullptr;

/// Does what the real runtime does, and notes the engines that it loads. The functions are in the order of TensorRT's table;
/// the compiler sees to it that none is missing.
class NotingRuntime final : public nvinfer1::apiv::VRuntime {
public:
    explicit NotingRuntime(nvinfer1::apiv::VRuntime& next) : next_(next) {}

    nvinfer1::IRuntime* getPImpl() noexcept override { return next_.getPImpl(); }
    nvinfer1::ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override
    {
        return noted(next_.deserializeCudaEngine(blob, size));
    }
    nvinfer1::ICudaEngine* deserializeCudaEngine(nvinfer1::IStreamReader& reader) noexcept override
    {
        return noted(next_.deserializeCudaEngine(reader));
    }
    void setDLACore(std::int32_t core) noexcept override { next_.setDLACore(core); }
    std::int32_t getDLACore() const noexcept override { return next_.getDLACore(); }
    std::int32_t getNbDLACores() const noexcept override { return next_.getNbDLACores(); }
    void setGpuAllocator(nvinfer1::IGpuAllocator* allocator) noexcept override { next_.setGpuAllocator(allocator); }
    void setErrorRecorder(nvinfer1::IErrorRecorder* recorder) noexcept override { next_.setErrorRecorder(recorder); }
    nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return next_.getErrorRecorder(); }
    nvinfer1::ILogger* getLogger() const noexcept override { return next_.getLogger(); }
    bool setMaxThreads(std::int32_t threads) noexcept override { return next_.setMaxThreads(threads); }
    std::int32_t getMaxThreads() const noexcept override { return next_.getMaxThreads(); }
    void setTemporaryDirectory(char const* path) noexcept override { next_.setTemporaryDirectory(path); }
    char const* getTemporaryDirectory() const noexcept override { return next_.getTemporaryDirectory(); }
    void setTempfileControlFlags(nvinfer1::TempfileControlFlags flags) noexcept override
    {
        next_.setTempfileControlFlags(flags);
    }
    nvinfer1::TempfileControlFlags getTempfileControlFlags() const noexcept override
    {
        return next_.getTempfileControlFlags();
    }
    nvinfer1::IPluginRegistry& getPluginRegistry() noexcept override { return next_.getPluginRegistry(); }
    void setPluginRegistryParent(nvinfer1::IPluginRegistry* parent) noexcept override
    {
        next_.setPluginRegistryParent(parent);
    }
    nvinfer1::IRuntime* loadRuntime(char const* path) noexcept override { return next_.loadRuntime(path); }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { next_.setEngineHostCodeAllowed(allowed); }
    bool getEngineHostCodeAllowed() const noexcept override { return next_.getEngineHostCodeAllowed(); }
#if NV_TENSORRT_MINOR >= 7
    nvinfer1::ICudaEngine* deserializeCudaEngineV2(nvinfer1::IStreamReaderV2& reader) noexcept override
    {
        return noted(next_.deserializeCudaEngineV2(reader));
    }
#endif

private:
    /// TensorRT forbids exceptions here; without memory the engine goes unnoted, and the capture counts one too few.
    static nvinfer1::ICudaEngine* noted(nvinfer1::ICudaEngine* engine) noexcept
    {
        if (engine != nullptr && current_capture != nullptr) {
            try {
                current_capture->note(engine);
            } catch (std::bad_alloc const&) {
            }
        }
        return engine;
    }

    nvinfer1::apiv::VRuntime& next_;
};

/// What the client gets: owns the real runtime, so that deleting it runs libnvinfer's own destructor. All other members of
/// `IRuntime` are inline calls of `mImpl`.
class CapturedRuntime final : public nvinfer1::IRuntime {
public:
    explicit CapturedRuntime(nvinfer1::IRuntime* real) : real_(real), noting_(*(real->*(&CapturedRuntime::mImpl)))
    {
        mImpl = &noting_;
    }
    ~CapturedRuntime() noexcept override { delete real_; }

private:
    nvinfer1::IRuntime* real_;
    NotingRuntime noting_;
};

using CreateRuntime = void* (*)(void*, std::int32_t) noexcept;

CreateRuntime next_create_runtime()
{
    if (rf_next_create_infer_runtime != nullptr) {
        return rf_next_create_infer_runtime;
    }
    return reinterpret_cast<CreateRuntime>(dlsym(RTLD_NEXT, "createInferRuntime_INTERNAL"));
}

}

Capture::Capture() : outer_(current_capture)
{
    current_capture = this;
}

Capture::~Capture()
{
    current_capture = outer_;
}

Capture* Capture::current()
{
    return current_capture;
}

bool capture_is_linked()
{
    return rf_next_create_infer_runtime != nullptr
           || dlsym(RTLD_DEFAULT, "createInferRuntime_INTERNAL") == reinterpret_cast<void*>(&rf_own_create_infer_runtime);
}

}

extern "C" __attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(
    void* logger, std::int32_t version) noexcept
{
    rollforge::shim::CreateRuntime const next = rollforge::shim::next_create_runtime();
    void* const real = next == nullptr ? nullptr : next(logger, version);
    if (real == nullptr || rollforge::shim::Capture::current() == nullptr) {
        return real;
    }
    auto* const runtime = static_cast<nvinfer1::IRuntime*>(real);
    auto* const captured = new (std::nothrow) rollforge::shim::CapturedRuntime(runtime);
    return captured == nullptr ? static_cast<void*>(runtime) : static_cast<nvinfer1::IRuntime*>(captured);
}
