// New weights for an engine, through TensorRT's refitter.

#include "shim/guard.h"
#include "shim/logger.h"
#include "shim/objects.h"

#include <cuda_runtime_api.h>

namespace rollforge::shim {
namespace {

using nvinfer1::DataType;

/// Where the number formats that the contract does not name begin: this plus TensorRT's number.
constexpr std::int32_t kOtherFormats = 100;

std::int32_t contract_dtype(DataType type)
{
    switch (type) {
    case DataType::kFLOAT:
        return RF_F32;
    case DataType::kHALF:
        return RF_F16;
    case DataType::kBF16:
        return RF_BF16;
    default:
        return kOtherFormats + static_cast<std::int32_t>(type);
    }
}

DataType tensorrt_dtype(std::int32_t dtype)
{
    switch (dtype) {
    case RF_F32:
        return DataType::kFLOAT;
    case RF_F16:
        return DataType::kHALF;
    case RF_BF16:
        return DataType::kBF16;
    default:
        return static_cast<DataType>(dtype - kOtherFormats);
    }
}

std::string dtype_name(std::int32_t dtype)
{
    switch (dtype) {
    case RF_F32:
        return "f32";
    case RF_F16:
        return "f16";
    case RF_BF16:
        return "bf16";
    default:
        return "number format " + std::to_string(dtype);
    }
}

/// CUDA's device is a thread's; the engine may have been loaded on another thread.
void enter_device(int device)
{
    cudaError_t const error = cudaSetDevice(device);
    if (error != cudaSuccess) {
        throw std::runtime_error("CUDA device " + std::to_string(device) + ": " + cudaGetErrorString(error));
    }
}

std::vector<char const*> names_of(nvinfer1::IRefitter& refitter)
{
    std::vector<char const*> names(static_cast<std::size_t>(refitter.getAllWeights(0, nullptr)));
    refitter.getAllWeights(static_cast<std::int32_t>(names.size()), names.data());
    return names;
}

rf_status open(rf_engine* engine, rf_refitter** out)
{
    return guard([&] {
        Engine& target = require(behind(engine), "engine");
        rf_refitter*& slot = require(out, "out");
        slot = nullptr;
        if (!target.engine->isRefittable()) {
            throw Failure(RF_UNSUPPORTED, "the engine cannot be refitted: it was built without use_refit");
        }
        enter_device(target.device);
        clear_log();
        auto opened = std::make_unique<Refitter>();
        opened->device = target.device;
        opened->refitter.reset(nvinfer1::createInferRefitter(*target.engine, logger()));
        if (!opened->refitter) {
            throw std::runtime_error("TensorRT cannot make a refitter: " + logged_error());
        }
        // It only looks for values that do not fit when fp32 becomes half, and costs time at every refit.
        opened->refitter->setWeightsValidation(false);
        for (char const* name : names_of(*opened->refitter)) {
            nvinfer1::Weights const prototype = opened->refitter->getWeightsPrototype(name);
            opened->by_name.emplace(name, opened->weights.size());
            opened->weights.push_back({name, contract_dtype(prototype.type), prototype.count});
        }
        hand_out(std::move(opened), slot);
    });
}

std::uint64_t length(rf_refitter const* refitter)
{
    return refitter == nullptr ? 0 : behind(refitter)->weights.size();
}

rf_status weight(rf_refitter const* refitter, std::uint64_t index, rf_weight* out)
{
    return guard([&] {
        auto const& weights = require(behind(refitter), "refitter").weights;
        if (index >= weights.size()) {
            throw Failure(
                RF_INVALID_ARGUMENT,
                "the engine has " + std::to_string(weights.size()) + " tensors, none with index " + std::to_string(index));
        }
        Refittable const& found = weights[index];
        require(out, "out") = {found.name.c_str(), found.dtype, found.count};
    });
}

void check_binding(Refittable const& expected, std::int32_t dtype, std::int64_t count)
{
    if (dtype != expected.dtype) {
        throw Failure(
            RF_INVALID_ARGUMENT,
            expected.name + " is " + dtype_name(expected.dtype) + " in the engine, got " + dtype_name(dtype));
    }
    if (count != expected.count) {
        throw Failure(
            RF_INVALID_ARGUMENT,
            expected.name + " has " + std::to_string(expected.count) + " elements, got " + std::to_string(count));
    }
}

rf_status bind(
    rf_refitter* refitter, char const* name, std::int32_t dtype, void const* values, std::int64_t count,
    std::int32_t location)
{
    return guard([&] {
        Refitter& target = require(behind(refitter), "refitter");
        auto const found = target.by_name.find(&require(name, "name"));
        if (found == target.by_name.end()) {
            throw Failure(RF_INVALID_ARGUMENT, std::string("the engine has no tensor ") + name);
        }
        check_binding(target.weights[found->second], dtype, count);
        if (values == nullptr || (location != RF_HOST && location != RF_DEVICE)) {
            throw Failure(RF_INVALID_ARGUMENT, std::string(name) + " must be bound to host or device memory");
        }
        enter_device(target.device);
        clear_log();
        auto const place = location == RF_HOST ? nvinfer1::TensorLocation::kHOST : nvinfer1::TensorLocation::kDEVICE;
        if (!target.refitter->setNamedWeights(name, {tensorrt_dtype(dtype), values, count}, place)) {
            throw std::runtime_error(std::string("TensorRT does not take ") + name + ": " + logged_error());
        }
        target.is_bound = true;
    });
}

/// Refuses a refit that TensorRT would refuse half-way. It counts only tensors that are combined with one that was bound.
void check_missing(nvinfer1::IRefitter& refitter)
{
    std::int32_t const count = refitter.getMissingWeights(0, nullptr);
    if (count > 0) {
        char const* first = nullptr;
        refitter.getMissingWeights(1, &first);
        throw Failure(
            RF_INVALID_STATE,
            "TensorRT needs " + std::to_string(count) + " more tensors for this refit, the first is "
                + (first == nullptr ? "unnamed" : first));
    }
}

rf_status commit(rf_refitter* refitter, void* stream)
{
    return guard([&] {
        Refitter& target = require(behind(refitter), "refitter");
        auto* const order = static_cast<cudaStream_t>(stream);
        if (!target.is_bound) {
            throw Failure(RF_INVALID_STATE, "a refit needs bound tensors, there are none");
        }
        enter_device(target.device);
        check_missing(*target.refitter);
        clear_log();
        bool const started = target.refitter->refitCudaEngineAsync(order);
        // Even after a failure: what was started still reads the caller's memory.
        cudaError_t const error = cudaStreamSynchronize(order);
        if (!started) {
            throw Failure(RF_REFIT_PARTIAL, "TensorRT's refit failed: " + logged_error());
        }
        if (error != cudaSuccess) {
            throw Failure(RF_REFIT_PARTIAL, std::string("CUDA failed during the refit: ") + cudaGetErrorString(error));
        }
    });
}

void close(rf_refitter* refitter)
{
    delete behind(refitter);
}

}

void add_refit(rf_api& api)
{
    api.refit_open = open;
    api.refit_len = length;
    api.refit_weight = weight;
    api.refit_bind = bind;
    api.refit_commit = commit;
    api.refit_close = close;
}

}
