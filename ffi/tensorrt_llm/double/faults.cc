#include "faults.h"

#include "failure.h"
#include "testing.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <new>
#include <string_view>

namespace rollforge::contract_double {
namespace {

/// Lets hanging calls wait for their release.
struct Hangs {
    std::mutex mutex;
    std::condition_variable released;
    uint64_t releases = 0;
};

Hangs& hangs() {
    // Never destroyed: a thread may still hang in it when the process ends.
    static Hangs* const all = new Hangs;
    return *all;
}

constexpr std::array<std::string_view, 13> points = {
    "create", "enqueue", "await", "cancel", "stats", "step", "engine",
    "load", "serialize", "refit_open", "bind", "commit", "destroy"};

/// What may happen, and where; "" is anywhere.
struct Happening {
    std::string_view what;
    std::string_view point;
    bool takes_argument;
};

constexpr std::array<Happening, 13> happenings = {{
    {"throw", "", false},
    {"throw_other", "", false},
    {"hang", "", false},
    {"oom", "", false},
    {"non_leader", "create", false},
    {"duplicate_id", "enqueue", false},
    {"error_response", "enqueue", false},
    {"stale_kv", "enqueue", false},
    {"unknown_id", "await", false},
    {"unknown_finish", "await", false},
    {"double_delivery", "await", false},
    {"fail_at", "commit", true},
    {"skip", "commit", true},
}};

std::string place(Fault const& fault) { return "scripted fault: " + fault.point + " " + fault.what; }

[[noreturn]] void hang(Fault const& fault) {
    Hangs& all = hangs();
    std::unique_lock<std::mutex> lock(all.mutex);
    uint64_t const before = all.releases;
    all.released.wait(lock, [&] { return all.releases != before; });
    throw Failure(RF_INTERNAL, place(fault) + " was released");
}

}  // namespace

Fault Fault::parse(std::string const& point, uint64_t nth, std::string const& what) {
    if (std::find(points.begin(), points.end(), point) == points.end())
        throw Failure(RF_INVALID_ARGUMENT, "there is no fault point " + point);
    std::size_t const colon = what.find(':');
    Fault fault{point, nth, what.substr(0, colon), colon == std::string::npos ? "" : what.substr(colon + 1)};
    auto const known = std::find_if(happenings.begin(), happenings.end(), [&](Happening const& one) {
        return one.what == fault.what && (one.point.empty() || one.point == point);
    });
    if (known == happenings.end())
        throw Failure(RF_INVALID_ARGUMENT, "there is no fault " + what + " at " + point);
    if (known->takes_argument == fault.argument.empty())
        throw Failure(RF_INVALID_ARGUMENT, "fault " + what + (known->takes_argument ? " lacks" : " takes no") + " argument");
    bool const digits = fault.argument.find_first_not_of("0123456789") == std::string::npos;
    if (fault.what == "fail_at" && (!digits || fault.argument.size() > 9))
        throw Failure(RF_INVALID_ARGUMENT, "fault " + what + " must name a number of tensors");
    return fault;
}

Faults::Faults(std::vector<Fault> script, std::string const& identity)
    : script_(std::move(script)), counts_(counts_of(identity)) {}

std::shared_ptr<Faults::Counts> Faults::counts_of(std::string const& identity) {
    if (identity.empty()) return std::make_shared<Counts>();
    static std::mutex mutex;
    static std::map<std::string, std::shared_ptr<Counts>> all;
    std::lock_guard<std::mutex> const lock(mutex);
    std::shared_ptr<Counts>& counts = all[identity];
    if (!counts) counts = std::make_shared<Counts>();
    return counts;
}

std::optional<Fault> Faults::reach(std::string const& point) {
    if (script_.empty()) return std::nullopt;
    uint64_t call;
    {
        std::lock_guard<std::mutex> const lock(counts_->mutex);
        call = ++counts_->calls[point];
    }
    for (Fault const& fault : script_) {
        if (fault.point != point || (fault.nth != 0 && fault.nth != call)) continue;
        if (fault.what == "throw") throw std::runtime_error(place(fault) + " at call " + std::to_string(call));
        if (fault.what == "throw_other") throw 42;
        if (fault.what == "oom") throw std::bad_alloc();
        if (fault.what == "hang") hang(fault);
        return fault;
    }
    return std::nullopt;
}

}  // namespace rollforge::contract_double

void rf_double_release_hangs(void) {
    using namespace rollforge::contract_double;
    Hangs& all = hangs();
    std::lock_guard<std::mutex> const lock(all.mutex);
    ++all.releases;
    all.released.notify_all();
}
