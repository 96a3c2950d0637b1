// Responses on their way from the execution thread to whoever awaits them.

#pragma once

#include "faults.h"
#include "request.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

namespace rollforge::contract_double {

/// A queue of responses, and the scripted ways to deliver them wrongly.
class Outbox {
public:
    void put(std::vector<Response> responses);
    /// Waits for responses, at most so long.
    std::vector<Response> take(std::chrono::milliseconds timeout, Faults& faults);

private:
    void spoil(std::vector<Response>& responses);

    std::mutex mutex_;
    std::condition_variable arrived_;
    std::vector<Response> responses_;
    // Faults that wait for a response to spoil. Only the awaiting thread looks at them.
    bool unknown_id_ = false;
    bool unknown_finish_ = false;
    bool double_delivery_ = false;
};

}  // namespace rollforge::contract_double
