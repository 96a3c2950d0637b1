// Failures by script: what goes wrong, at which call.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// A `fault` line of a plan: at call `nth` of `point` (0: each call), `what` happens.
///
/// Points: create, enqueue, await, cancel, stats, step, engine, load, serialize, refit_open, bind, commit, destroy.
/// Anywhere: `throw`, `throw_other` (no std::exception), `oom`, `hang` (until rf_double_release_hangs).
/// At create: `non_leader`.
/// At enqueue: `duplicate_id` (the id before), `error_response`, `stale_kv` (the salt is ignored).
/// At await, to the first final response from then on: `unknown_finish`, `double_delivery` (once more at the next await),
/// `unknown_id` (once more under an id that nobody has).
/// At commit: `fail_at:<k>` (k tensors are new, then RF_REFIT_PARTIAL), `skip:<name>` (the tensor silently stays as it was).
struct Fault {
    std::string point;
    uint64_t nth = 0;
    std::string what;
    /// What follows the colon of `fail_at:<k>` and `skip:<name>`.
    std::string argument;

    /// Reads `<point> <nth> <what>`; RF_INVALID_ARGUMENT for a point or happening that does not exist.
    static Fault parse(std::string const& point, uint64_t nth, std::string const& what);
};

/// Counts the calls of each point and says what goes wrong at them.
class Faults {
public:
    /// Plans of one identity count together, so that a fault at call 1 does not come back in an engine rebuilt from the
    /// plan. An empty identity counts alone.
    Faults(std::vector<Fault> script, std::string const& identity);

    /// Counts a call. Throws, runs out of memory or hangs where the script says so; returns any other fault.
    std::optional<Fault> reach(std::string const& point);

private:
    struct Counts {
        std::mutex mutex;
        std::map<std::string, uint64_t> calls;
    };

    static std::shared_ptr<Counts> counts_of(std::string const& identity);

    std::vector<Fault> script_;
    std::shared_ptr<Counts> counts_;
};

}  // namespace rollforge::contract_double
