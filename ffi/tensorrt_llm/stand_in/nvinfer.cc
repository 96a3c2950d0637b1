// The declared part of TensorRT and CUDA over the contract double.

#include "stand_in/double.h"

#include <NvInferRuntime.h>

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace rollforge::stand_in {
namespace {

using namespace nvinfer1;

/// Tells a failure of the double the way TensorRT does: in the log, and with "no".
bool went_well(rf_status status, ILogger& logger) noexcept
{
    if (status == RF_OUT_OF_MEMORY) {
        logger.log(ILogger::Severity::kERROR, "out of memory");
    } else if (status != RF_OK) {
        logger.log(ILogger::Severity::kERROR, contract_double().last_error());
    }
    return status == RF_OK;
}

class SerializationConfig final : public ISerializationConfig {
public:
    bool clearFlag(SerializationFlag) noexcept override { return true; }
    bool setFlag(SerializationFlag) noexcept override { return true; }
};

class HostMemory final : public IHostMemory {
public:
    explicit HostMemory(rf_buffer* buffer) : buffer_(buffer) {}
    ~HostMemory() noexcept override { contract_double().buffer_free(buffer_); }
    void* data() const noexcept override { return const_cast<std::uint8_t*>(contract_double().buffer_data(buffer_)); }
    std::size_t size() const noexcept override { return contract_double().buffer_len(buffer_); }

private:
    rf_buffer* buffer_;
};

/// An engine of the double: that of an executor, or one loaded from a plan, which it then owns.
class Engine final : public ICudaEngine {
public:
    Engine(rf_engine* engine, bool is_owned, ILogger& logger) : engine_(engine), is_owned_(is_owned), logger_(logger) {}
    ~Engine() noexcept override
    {
        contract_double().refit_close(refitter_);
        if (is_owned_) {
            contract_double().engine_free(engine_);
        }
    }
    /// The double says so only when a refitter is opened: it is kept for whoever asked.
    bool isRefittable() const noexcept override
    {
        contract_double().refit_close(refitter_);
        refitter_ = nullptr;
        opened_ = contract_double().refit_open(engine_, &refitter_);
        sentence_ = contract_double().last_error();
        return opened_ != RF_UNSUPPORTED;
    }
    ISerializationConfig* createSerializationConfig() noexcept override { return new SerializationConfig; }
    IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept override
    {
        rf_buffer* buffer = nullptr;
        bool const written = went_well(contract_double().engine_serialize(engine_, &buffer), logger_);
        return written ? new HostMemory(buffer) : nullptr;
    }
    /// Hands out the refitter that `isRefittable` opened; NULL where it failed.
    rf_refitter* take_refitter()
    {
        if (opened_ != RF_OK) {
            logger_.log(ILogger::Severity::kERROR, sentence_.c_str());
        }
        return std::exchange(refitter_, nullptr);
    }

private:
    rf_engine* engine_;
    bool is_owned_;
    ILogger& logger_;
    mutable rf_refitter* refitter_ = nullptr;
    mutable rf_status opened_ = RF_OK;
    mutable std::string sentence_;
};

DataType tensorrt_dtype(std::int32_t dtype)
{
    return dtype == RF_F32 ? DataType::kFLOAT : dtype == RF_F16 ? DataType::kHALF : DataType::kBF16;
}

std::int32_t contract_dtype(DataType type)
{
    return type == DataType::kFLOAT ? RF_F32 : type == DataType::kHALF ? RF_F16 : RF_BF16;
}

class Refitter final : public IRefitter {
public:
    Refitter(rf_refitter* refitter, ILogger& logger) : refitter_(refitter), logger_(logger) {}
    ~Refitter() noexcept override { contract_double().refit_close(refitter_); }
    std::int32_t getAllWeights(std::int32_t size, char const** names) noexcept override
    {
        for (std::int32_t i = 0; i < size; ++i) {
            names[i] = weight(static_cast<std::uint64_t>(i)).name;
        }
        return static_cast<std::int32_t>(contract_double().refit_len(refitter_));
    }
    std::int32_t getMissingWeights(std::int32_t, char const**) noexcept override { return 0; }
    Weights getWeightsPrototype(char const* name) const noexcept override
    {
        for (std::uint64_t i = 0; i < contract_double().refit_len(refitter_); ++i) {
            rf_weight const found = weight(i);
            if (std::strcmp(found.name, name) == 0) {
                return {tensorrt_dtype(found.dtype), nullptr, found.count};
            }
        }
        return {DataType::kFLOAT, nullptr, -1};
    }
    void setWeightsValidation(bool) noexcept override {}
    bool setNamedWeights(char const* name, Weights weights, TensorLocation location) noexcept override
    {
        std::int32_t const place = location == TensorLocation::kHOST ? RF_HOST : RF_DEVICE;
        return went_well(
            contract_double().refit_bind(
                refitter_, name, contract_dtype(weights.type), weights.values, weights.count, place),
            logger_);
    }
    bool refitCudaEngineAsync(cudaStream_t stream) noexcept override
    {
        return went_well(contract_double().refit_commit(refitter_, stream), logger_);
    }

private:
    rf_weight weight(std::uint64_t index) const
    {
        rf_weight found = {};
        contract_double().refit_weight(refitter_, index, &found);
        return found;
    }

    rf_refitter* refitter_;
    ILogger& logger_;
};

/// A plan that came as bytes, in a file for the double to load.
class PlanFile {
public:
    PlanFile(void const* plan, std::size_t size)
    {
        char const* const folder = std::getenv("TMPDIR");
        path_ = std::string(folder == nullptr ? "/tmp" : folder) + "/rollforge-plan-XXXXXX";
        int const file = mkstemp(path_.data());
        char const* next = static_cast<char const*>(plan);
        for (ssize_t written = 0; file >= 0 && size > 0; size -= static_cast<std::size_t>(written), next += written) {
            written = write(file, next, size);
            if (written <= 0) {
                break;
            }
        }
        close(file);
    }
    ~PlanFile() { unlink(path_.c_str()); }
    PlanFile(PlanFile const&) = delete;
    PlanFile& operator=(PlanFile const&) = delete;

    char const* path() const { return path_.c_str(); }

private:
    std::string path_;
};

class Runtime final : public IRuntime, public apiv::VRuntime {
public:
    explicit Runtime(ILogger& logger) : logger_(logger) { mImpl = this; }

    IRuntime* getPImpl() noexcept override { return this; }
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override
    {
        LiveEngineBlob live = {};
        if (size == sizeof(live)) {
            std::memcpy(&live, blob, size);
            if (std::memcmp(live.magic, kLiveEngine, sizeof(live.magic)) == 0) {
                return new Engine(live.engine, false, logger_);
            }
        }
        PlanFile const file(blob, size);
        rf_engine* engine = nullptr;
        bool const loaded = went_well(contract_double().engine_load(file.path(), &engine), logger_);
        return loaded ? new Engine(engine, true, logger_) : nullptr;
    }
    ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept override { return nullptr; }
    void setDLACore(std::int32_t) noexcept override {}
    std::int32_t getDLACore() const noexcept override { return 0; }
    std::int32_t getNbDLACores() const noexcept override { return 0; }
    void setGpuAllocator(IGpuAllocator*) noexcept override {}
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    ILogger* getLogger() const noexcept override { return &logger_; }
    bool setMaxThreads(std::int32_t) noexcept override { return true; }
    std::int32_t getMaxThreads() const noexcept override { return 1; }
    void setTemporaryDirectory(char const*) noexcept override {}
    char const* getTemporaryDirectory() const noexcept override { return ""; }
    void setTempfileControlFlags(TempfileControlFlags) noexcept override {}
    TempfileControlFlags getTempfileControlFlags() const noexcept override { return 0; }
    /// There is none, and nobody here asks for it.
    IPluginRegistry& getPluginRegistry() noexcept override { std::abort(); }
    void setPluginRegistryParent(IPluginRegistry*) noexcept override {}
    IRuntime* loadRuntime(char const*) noexcept override { return nullptr; }
    void setEngineHostCodeAllowed(bool) noexcept override {}
    bool getEngineHostCodeAllowed() const noexcept override { return false; }
#if NV_TENSORRT_MINOR >= 7
    ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept override { return nullptr; }
#endif

private:
    ILogger& logger_;
};

}
}

extern "C" std::int32_t getInferLibVersion() noexcept
{
    return NV_TENSORRT_VERSION;
}

/// What `createInferRuntime_INTERNAL` of shim/capture.cc goes on to, where the real one goes on to libnvinfer.
extern "C" void* rf_next_create_infer_runtime(void* logger, std::int32_t) noexcept
{
    return static_cast<nvinfer1::IRuntime*>(new rollforge::stand_in::Runtime(*static_cast<nvinfer1::ILogger*>(logger)));
}

extern "C" void* createInferRefitter_INTERNAL(void* engine, void* logger, std::int32_t) noexcept
{
    auto& source = *static_cast<rollforge::stand_in::Engine*>(static_cast<nvinfer1::ICudaEngine*>(engine));
    rf_refitter* const refitter = source.take_refitter();
    auto& log = *static_cast<nvinfer1::ILogger*>(logger);
    return refitter == nullptr
               ? nullptr
               : static_cast<nvinfer1::IRefitter*>(new rollforge::stand_in::Refitter(refitter, log));
}

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t)
{
    return cudaSuccess;
}

extern "C" cudaError_t cudaGetDevice(int* device)
{
    *device = 0;
    return cudaSuccess;
}

extern "C" cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}

extern "C" char const* cudaGetErrorString(cudaError_t)
{
    return "no CUDA here";
}
