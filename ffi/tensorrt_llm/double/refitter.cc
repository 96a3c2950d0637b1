#include "refitter.h"

#include "failure.h"

#include <utility>

namespace rollforge::contract_double {

Refitter::Refitter(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
    engine_->faults().reach("refit_open");
    if (!engine_->plan().refittable)
        throw Failure(RF_UNSUPPORTED, "the engine is not refittable: build it with use_refit");
    for (std::size_t place = 0; place < weights().size(); ++place) places_[weights()[place].name] = place;
}

void Refitter::bind(std::string const& name, int32_t dtype, void const* values, int64_t count) {
    engine_->faults().reach("bind");
    auto const found = places_.find(name);
    require(found != places_.end(), "the engine has no refittable tensor " + name);
    Tensor const& tensor = weights()[found->second];
    require(dtype == tensor.dtype, name + " must be " + dtype_name(tensor.dtype) + ", found " + dtype_name(dtype));
    require(count >= 0 && static_cast<std::size_t>(count) == tensor.count,
            name + " must have " + std::to_string(tensor.count) + " elements, found " + std::to_string(count));
    require(values != nullptr, name + " must have values, found NULL");
    bound_[found->second] = values;
}

void Refitter::commit() {
    if (bound_.empty()) throw Failure(RF_INVALID_STATE, "a refit needs bound tensors, found none");
    std::vector<NewValues> values;
    for (auto const& [place, pointer] : bound_) values.push_back({place, pointer});
    engine_->refit(values);
}

}  // namespace rollforge::contract_double
