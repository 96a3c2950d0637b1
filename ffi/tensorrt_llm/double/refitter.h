// What TensorRT's IRefitter is to the real engine: names, where their new values lie, and the commit.

#pragma once

#include "engine.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// Takes new weights into an engine. Values stay the caller's; each commit reads them anew.
class Refitter {
public:
    /// RF_UNSUPPORTED for an engine that was not built for refit.
    explicit Refitter(std::shared_ptr<Engine> engine);

    /// Every tensor of the engine, fixed buffers too; only names, formats and counts may be read.
    std::vector<Tensor> const& weights() const { return engine_->plan().tensors; }

    /// Says where a tensor's values lie in host memory. RF_INVALID_ARGUMENT for a wrong name, format or count.
    void bind(std::string const& name, int32_t dtype, void const* values, int64_t count);
    /// Copies every bound tensor, in the engine's order.
    void commit();

private:
    std::shared_ptr<Engine> engine_;
    std::map<std::string, std::size_t> places_;
    std::map<std::size_t, void const*> bound_;
};

}  // namespace rollforge::contract_double
