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
