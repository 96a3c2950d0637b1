// What TensorRT's engine is to the real executor: the weights, their refit, and who uses them.

#pragma once

#include "faults.h"
#include "model.h"
#include "plan.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace rollforge::contract_double {

/// New values of one tensor.
struct NewValues {
    std::size_t tensor;
    void const* values;
};

/// A loaded plan. An executor computes with it while requests are in flight; a refit changes it while none are.
class Engine {
public:
    explicit Engine(Plan plan);

    /// Fixed sizes, names and script; never changed.
    Plan const& plan() const { return plan_; }
    Faults& faults() { return faults_; }
    /// Fails with RF_UNSUPPORTED where the plan lacks the capability.
    void require(uint64_t capability, char const* what) const;

    /// Returns the transformer, made at the first call. Only to be used while a request is in flight.
    Model& model();

    /// Counts a request that is in flight, until the pass is gone.
    class Pass {
    public:
        explicit Pass(std::shared_ptr<Engine> engine);
        ~Pass();
        Pass(Pass const&) = delete;
        Pass& operator=(Pass const&) = delete;

    private:
        std::shared_ptr<Engine> engine_;
    };

    /// Says whether a refit failed half-way.
    bool is_partial() const;

    /// Copies new values in, in their order. RF_INVALID_STATE while requests are in flight; RF_REFIT_PARTIAL where the
    /// script stops it in the middle.
    void refit(std::vector<NewValues> const& values);
    /// Writes the plan with the weights it has now.
    std::vector<uint8_t> serialize();

private:
    void copy(NewValues const& values);

    Plan plan_;
    Faults faults_;
    std::unique_ptr<Model> model_;
    /// Guards the weights, and what follows.
    mutable std::mutex mutex_;
    std::size_t in_flight_ = 0;
    bool partial_ = false;
};

}  // namespace rollforge::contract_double
