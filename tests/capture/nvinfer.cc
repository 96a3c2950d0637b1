// A libnvinfer that only loads: each loader answers with an address of its own. Like the real library it exports
// `createInferRuntime_INTERNAL`.

#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>

using namespace nvinfer1;

namespace {

ICudaEngine* engine_at(std::size_t address)
{
    return reinterpret_cast<ICudaEngine*>(address);
}

class Runtime final : public IRuntime, public apiv::VRuntime {
public:
    Runtime() { mImpl = this; }
    ~Runtime() noexcept override { std::puts("libnvinfer's destructor"); }

    IRuntime* getPImpl() noexcept override { return this; }
    ICudaEngine* deserializeCudaEngine(void const*, std::size_t size) noexcept override { return engine_at(size); }
    ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { return engine_at(0x20); }
    void setDLACore(std::int32_t) noexcept override {}
    std::int32_t getDLACore() const noexcept override { return 0; }
    std::int32_t getNbDLACores() const noexcept override { return 0; }
    void setGpuAllocator(IGpuAllocator*) noexcept override {}
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    ILogger* getLogger() const noexcept override { return nullptr; }
    bool setMaxThreads(std::int32_t) noexcept override { return true; }
    std::int32_t getMaxThreads() const noexcept override { return 1; }
    void setTemporaryDirectory(char const*) noexcept override {}
    char const* getTemporaryDirectory() const noexcept override { return ""; }
    void setTempfileControlFlags(TempfileControlFlags) noexcept override {}
    TempfileControlFlags getTempfileControlFlags() const noexcept override { return 0; }
    IPluginRegistry& getPluginRegistry() noexcept override { std::abort(); }
    void setPluginRegistryParent(IPluginRegistry*) noexcept override {}
    IRuntime* loadRuntime(char const*) noexcept override { return nullptr; }
    void setEngineHostCodeAllowed(bool) noexcept override {}
    bool getEngineHostCodeAllowed() const noexcept override { return false; }
    ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return engine_at(0x30); }
};

}

extern "C" __attribute__((visibility("default"))) void* createInferRuntime_INTERNAL(void*, std::int32_t) noexcept
{
    return static_cast<IRuntime*>(new Runtime);
}
