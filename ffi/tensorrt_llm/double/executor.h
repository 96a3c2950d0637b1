// What tensorrt_llm::executor::Executor is: takes requests in, computes them together on a thread of its own, gives
// responses out.

#pragma once

#include "batch.h"
#include "engine.h"
#include "outbox.h"
#include "request.h"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace rollforge::contract_double {

/// A running engine.
class Executor {
public:
    Executor(std::shared_ptr<Engine> engine, ExecutorConfig const& config);
    /// Forgets what is in flight and waits for the thread.
    ~Executor();
    Executor(Executor const&) = delete;
    Executor& operator=(Executor const&) = delete;

    bool can_enqueue() const { return leader_; }
    /// Takes a request in; its id counts from 1. RF_INVALID_STATE where this rank may not, or the queue is full.
    uint64_t enqueue(Request request);
    std::vector<Response> await(std::chrono::milliseconds timeout);
    /// Asks for an early end. Ids that are unknown or ended are ignored.
    void cancel(uint64_t id);
    /// Returns the newest iteration's statistics once, as TensorRT-LLM hands each out once; "" when there is nothing new.
    std::string statistics();

    std::shared_ptr<Engine> const& engine() const { return engine_; }

private:
    void check(Request const& request) const;
    void run();
    /// Moves what has arrived into the batch; false when it is time to stop.
    bool fetch();

    std::shared_ptr<Engine> engine_;
    ExecutorConfig config_;
    bool leader_ = true;
    Outbox outbox_;
    /// Of the execution thread alone.
    Batch batch_;

    std::mutex mutex_;
    std::condition_variable changed_;
    // Guarded by the mutex.
    std::deque<std::shared_ptr<Job>> arrived_;
    std::vector<uint64_t> cancelled_;
    std::string statistics_;
    uint64_t last_id_ = 0;
    bool stopping_ = false;

    std::thread thread_;
};

}  // namespace rollforge::contract_double
