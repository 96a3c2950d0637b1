#include "outbox.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

namespace rollforge::contract_double {

void Outbox::put(std::vector<Response> responses) {
    if (responses.empty()) return;
    std::lock_guard<std::mutex> const lock(mutex_);
    std::move(responses.begin(), responses.end(), std::back_inserter(responses_));
    arrived_.notify_all();
}

std::vector<Response> Outbox::take(std::chrono::milliseconds timeout, Faults& faults) {
    if (std::optional<Fault> const fault = faults.reach("await")) {
        unknown_id_ |= fault->what == "unknown_id";
        unknown_finish_ |= fault->what == "unknown_finish";
        double_delivery_ |= fault->what == "double_delivery";
    }
    std::vector<Response> taken;
    {
        std::unique_lock<std::mutex> lock(mutex_);
        arrived_.wait_for(lock, timeout, [&] { return !responses_.empty(); });
        taken.swap(responses_);
    }
    spoil(taken);
    return taken;
}

/// Does what the script says to the first final response since.
void Outbox::spoil(std::vector<Response>& responses) {
    auto const is_final = [](Response const& response) { return response.is_final; };
    auto const last = std::find_if(responses.begin(), responses.end(), is_final);
    if (last == responses.end()) return;
    if (std::exchange(unknown_finish_, false)) last->finish_reason = 99;
    if (std::exchange(double_delivery_, false)) {
        Response again = *last;
        put({std::move(again)});
    }
    if (std::exchange(unknown_id_, false)) {
        Response stranger = *last;
        stranger.request_id += uint64_t{1} << 40;
        responses.push_back(std::move(stranger));
    }
}

}  // namespace rollforge::contract_double
