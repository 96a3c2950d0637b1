#include "engine.h"

#include "failure.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

namespace rollforge::contract_double {

Engine::Engine(Plan plan) : plan_(std::move(plan)), faults_(plan_.faults, plan_.identity) {}

void Engine::require(uint64_t capability, char const* what) const {
    if ((plan_.lacks & capability) != 0) throw Failure(RF_UNSUPPORTED, std::string("this engine lacks ") + what);
}

Model& Engine::model() {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (!model_) model_ = std::make_unique<Model>(plan_);
    return *model_;
}

Engine::Pass::Pass(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
    std::lock_guard<std::mutex> const lock(engine_->mutex_);
    ++engine_->in_flight_;
}

Engine::Pass::~Pass() {
    std::lock_guard<std::mutex> const lock(engine_->mutex_);
    --engine_->in_flight_;
}

bool Engine::is_partial() const {
    std::lock_guard<std::mutex> const lock(mutex_);
    return partial_;
}

void Engine::refit(std::vector<NewValues> const& values) {
    std::optional<Fault> const fault = faults_.reach("commit");
    std::lock_guard<std::mutex> const lock(mutex_);
    if (in_flight_ > 0)
        throw Failure(RF_INVALID_STATE, "a refit needs a drained engine, found " + std::to_string(in_flight_) +
                                            " requests in flight");
    if (partial_) throw Failure(RF_INVALID_STATE, "an earlier refit failed in part: load the engine anew");
    std::size_t left = values.size();
    bool const fails = fault && fault->what == "fail_at";
    if (fails) left = std::min<std::size_t>(left, std::stoul(fault->argument));
    for (std::size_t i = 0; i < left; ++i) {
        bool const skipped = fault && fault->what == "skip" && fault->argument == plan_.tensors[values[i].tensor].name;
        if (!skipped) copy(values[i]);
    }
    if (!fails) return;
    partial_ = true;
    throw Failure(RF_REFIT_PARTIAL, "scripted fault: the refit failed after " + std::to_string(left) + " of " +
                                        std::to_string(values.size()) + " tensors");
}

std::vector<uint8_t> Engine::serialize() {
    faults_.reach("serialize");
    std::lock_guard<std::mutex> const lock(mutex_);
    return plan_.serialize();
}

void Engine::copy(NewValues const& values) {
    Tensor& tensor = plan_.tensors[values.tensor];
    std::memcpy(tensor.bytes.data(), values.values, tensor.bytes.size());
    if (model_) model_->load(tensor);
}

}  // namespace rollforge::contract_double
