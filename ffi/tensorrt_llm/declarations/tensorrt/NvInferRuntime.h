// What the shim uses of TensorRT 10's `NvInferRuntime.h` and `NvInferImpl.h`: see ../README.md.
//
// `IRuntime` is built as TensorRT builds it (members that call `mImpl`, whose table of virtual functions has TensorRT's
// order), because the capture depends on that. The other classes are plain interfaces.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#ifndef RF_DECLARED_TENSORRT_MINOR
#define RF_DECLARED_TENSORRT_MINOR 14
#endif

#define NV_TENSORRT_MAJOR 10
#define NV_TENSORRT_MINOR RF_DECLARED_TENSORRT_MINOR
#define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 10000L + NV_TENSORRT_MINOR * 100L + NV_TENSORRT_PATCH)

extern "C" std::int32_t getInferLibVersion() noexcept;
extern "C" void* createInferRuntime_INTERNAL(void* logger, std::int32_t version) noexcept;
extern "C" void* createInferRefitter_INTERNAL(void* engine, void* logger, std::int32_t version) noexcept;

namespace nvinfer1 {

using AsciiChar = char;
using TempfileControlFlags = std::uint32_t;
class ICudaEngine;
class IErrorRecorder;
class IGpuAllocator;
class IPluginRegistry;
class IRuntime;

class INoCopy {
protected:
    INoCopy() = default;
    virtual ~INoCopy() = default;
    INoCopy(INoCopy const&) = delete;
    INoCopy& operator=(INoCopy const&) = delete;
};

class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };

    virtual void log(Severity severity, AsciiChar const* message) noexcept = 0;
    virtual ~ILogger() = default;
};

class IStreamReader {
public:
    virtual ~IStreamReader() = default;
    virtual std::int64_t read(void* destination, std::int64_t bytes) = 0;
};

#if NV_TENSORRT_MINOR >= 7
enum class SeekPosition : std::int32_t { kSET = 0, kCUR = 1, kEND = 2 };

class IStreamReaderV2 {
public:
    virtual ~IStreamReaderV2() = default;
    virtual std::int64_t read(void* destination, std::int64_t bytes, cudaStream_t stream) noexcept = 0;
    virtual bool seek(std::int64_t offset, SeekPosition where) noexcept = 0;
};
#endif

enum class DataType : std::int32_t {
    kFLOAT = 0,
    kHALF = 1,
    kINT8 = 2,
    kINT32 = 3,
    kBOOL = 4,
    kUINT8 = 5,
    kFP8 = 6,
    kBF16 = 7,
    kINT64 = 8,
};

enum class TensorLocation : std::int32_t { kDEVICE = 0, kHOST = 1 };

/// Values in memory; `count` is in elements.
class Weights {
public:
    DataType type;
    void const* values;
    std::int64_t count;
};

enum class SerializationFlag : std::int32_t {
    kEXCLUDE_WEIGHTS = 0,
    kEXCLUDE_LEAN_RUNTIME = 1,
#if NV_TENSORRT_MINOR >= 14
    kINCLUDE_REFIT = 2,
#endif
};

class ISerializationConfig : public INoCopy {
public:
    virtual ~ISerializationConfig() noexcept = default;
    virtual bool clearFlag(SerializationFlag flag) noexcept = 0;
    virtual bool setFlag(SerializationFlag flag) noexcept = 0;
};

class IHostMemory : public INoCopy {
public:
    virtual ~IHostMemory() noexcept = default;
    virtual void* data() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;
};

class ICudaEngine : public INoCopy {
public:
    virtual ~ICudaEngine() noexcept = default;
    virtual bool isRefittable() const noexcept = 0;
    virtual ISerializationConfig* createSerializationConfig() noexcept = 0;
    virtual IHostMemory* serializeWithConfig(ISerializationConfig& config) const noexcept = 0;
};

class IRefitter : public INoCopy {
public:
    virtual ~IRefitter() noexcept = default;
    virtual std::int32_t getAllWeights(std::int32_t size, char const** names) noexcept = 0;
    virtual std::int32_t getMissingWeights(std::int32_t size, char const** names) noexcept = 0;
    virtual Weights getWeightsPrototype(char const* name) const noexcept = 0;
    virtual void setWeightsValidation(bool validation) noexcept = 0;
    virtual bool setNamedWeights(char const* name, Weights weights, TensorLocation location) noexcept = 0;
    virtual bool refitCudaEngineAsync(cudaStream_t stream) noexcept = 0;
};

namespace apiv {

class VRoot {
public:
    virtual ~VRoot() noexcept = default;
};

/// What a runtime does, in the order of TensorRT's table.
class VRuntime : public VRoot {
public:
    virtual IRuntime* getPImpl() noexcept = 0;
    virtual ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept = 0;
    virtual ICudaEngine* deserializeCudaEngine(IStreamReader& reader) noexcept = 0;
    virtual void setDLACore(std::int32_t core) noexcept = 0;
    virtual std::int32_t getDLACore() const noexcept = 0;
    virtual std::int32_t getNbDLACores() const noexcept = 0;
    virtual void setGpuAllocator(IGpuAllocator* allocator) noexcept = 0;
    virtual void setErrorRecorder(IErrorRecorder* recorder) noexcept = 0;
    virtual IErrorRecorder* getErrorRecorder() const noexcept = 0;
    virtual ILogger* getLogger() const noexcept = 0;
    virtual bool setMaxThreads(std::int32_t threads) noexcept = 0;
    virtual std::int32_t getMaxThreads() const noexcept = 0;
    virtual void setTemporaryDirectory(char const* path) noexcept = 0;
    virtual char const* getTemporaryDirectory() const noexcept = 0;
    virtual void setTempfileControlFlags(TempfileControlFlags flags) noexcept = 0;
    virtual TempfileControlFlags getTempfileControlFlags() const noexcept = 0;
    virtual IPluginRegistry& getPluginRegistry() noexcept = 0;
    virtual void setPluginRegistryParent(IPluginRegistry* parent) noexcept = 0;
    virtual IRuntime* loadRuntime(char const* path) noexcept = 0;
    virtual void setEngineHostCodeAllowed(bool allowed) noexcept = 0;
    virtual bool getEngineHostCodeAllowed() const noexcept = 0;
#if NV_TENSORRT_MINOR >= 7
    virtual ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2& reader) noexcept = 0;
#endif
};

}

class IRuntime : public INoCopy {
public:
    virtual ~IRuntime() noexcept = default;

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept
    {
        return mImpl->deserializeCudaEngine(blob, size);
    }
    ICudaEngine* deserializeCudaEngine(IStreamReader& reader) { return mImpl->deserializeCudaEngine(reader); }
#if NV_TENSORRT_MINOR >= 7
    ICudaEngine* deserializeCudaEngine(IStreamReaderV2& reader) { return mImpl->deserializeCudaEngineV2(reader); }
#endif

protected:
    apiv::VRuntime* mImpl;
};

namespace {

inline IRuntime* createInferRuntime(ILogger& logger) noexcept
{
    return static_cast<IRuntime*>(createInferRuntime_INTERNAL(&logger, NV_TENSORRT_VERSION));
}

inline IRefitter* createInferRefitter(ICudaEngine& engine, ILogger& logger) noexcept
{
    return static_cast<IRefitter*>(createInferRefitter_INTERNAL(&engine, &logger, NV_TENSORRT_VERSION));
}

}
}
