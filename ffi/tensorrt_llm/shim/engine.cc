// Plans that nothing runs: loaded, refitted, and serialised again.

#include "shim/detect.h"
#include "shim/guard.h"
#include "shim/logger.h"
#include "shim/objects.h"

#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace rollforge::shim {
namespace {

/// A file in memory, to be read once.
class MappedFile {
public:
    explicit MappedFile(char const* path)
    {
        errno = 0;
        int const file = open(path, O_RDONLY | O_CLOEXEC);
        struct stat info = {};
        if (file >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
            size_ = static_cast<std::size_t>(info.st_size);
            data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
        }
        std::string const reason = errno != 0 ? std::strerror(errno) : "not a file, or empty";
        if (file >= 0) {
            close(file);
        }
        if (data_ == MAP_FAILED) {
            throw Failure(RF_INVALID_ARGUMENT, std::string("cannot read the plan ") + path + ": " + reason);
        }
    }
    ~MappedFile() { munmap(data_, size_); }
    MappedFile(MappedFile const&) = delete;
    MappedFile& operator=(MappedFile const&) = delete;

    void const* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    void* data_ = MAP_FAILED;
    std::size_t size_ = 0;
};

rf_status load(char const* plan_path, rf_engine** out)
{
    return guard([&] {
        rf_engine*& slot = require(out, "out");
        slot = nullptr;
        MappedFile const plan(&require(plan_path, "plan_path"));
        require_versions();
        load_plugins();
        clear_log();
        auto loaded = std::make_unique<Engine>();
        loaded->runtime.reset(nvinfer1::createInferRuntime(logger()));
        if (loaded->runtime) {
            loaded->owned.reset(loaded->runtime->deserializeCudaEngine(plan.data(), plan.size()));
        }
        loaded->engine = loaded->owned.get();
        if (loaded->engine == nullptr) {
            throw std::runtime_error(std::string("TensorRT cannot load the plan ") + plan_path + ": " + logged_error());
        }
        if (cudaGetDevice(&loaded->device) != cudaSuccess) {
            throw Failure(RF_INTERNAL, "CUDA does not say which device the plan was loaded on");
        }
        hand_out(std::move(loaded), slot);
    });
}

void free_engine(rf_engine* engine)
{
    delete behind(engine);
}

rf_status serialize(rf_engine* engine, rf_buffer** out)
{
    return guard([&] {
        nvinfer1::ICudaEngine& source = *require(behind(engine), "engine").engine;
        rf_buffer*& slot = require(out, "out");
        slot = nullptr;
        clear_log();
        std::unique_ptr<nvinfer1::ISerializationConfig> const config(source.createSerializationConfig());
        auto buffer = std::make_unique<Buffer>();
        if (config) {
            config->clearFlag(nvinfer1::SerializationFlag::kEXCLUDE_WEIGHTS);
            keep_refittable<nvinfer1::SerializationFlag>(*config, 0);
            buffer->plan.reset(source.serializeWithConfig(*config));
        }
        if (!buffer->plan) {
            throw std::runtime_error("TensorRT cannot serialise the engine: " + logged_error());
        }
        hand_out(std::move(buffer), slot);
    });
}

}

void add_engine(rf_api& api)
{
    api.engine_load = load;
    api.engine_free = free_engine;
    api.engine_serialize = serialize;
}

}
