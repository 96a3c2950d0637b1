// In-flight batching: which sequences compute how many tokens in an iteration, and what comes of it.

#pragma once

#include "engine.h"
#include "kv_cache.h"
#include "sampler.h"
#include "sequence.h"
#include "statistics.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <string>
#include <vector>

namespace rollforge::contract_double {

/// How an executor is set up; 0 takes the plan's size.
struct ExecutorConfig {
    std::size_t max_batch_size = 0;
    std::size_t max_num_tokens = 0;
    std::size_t kv_max_tokens = 0;
    bool block_reuse = false;
    bool chunked_context = false;
    /// 0 is unbounded.
    std::size_t max_queue_size = 0;
};

/// What came of one iteration.
struct Iteration {
    Statistics statistics;
    std::vector<Response> responses;
};

/// The waiting and the running requests of an executor. Belongs to the execution thread, but for `queued` and `expect`.
class Batch {
public:
    Batch(Engine& engine, ExecutorConfig const& config);

    /// Counts a request that is on its way, before it is added.
    void expect() { ++queued_; }
    /// How many requests have no sequence in the batch yet.
    std::size_t queued() const { return queued_; }

    void add(std::shared_ptr<Job> const& job);
    void cancel(uint64_t id);
    bool is_idle() const { return waiting_.empty() && running_.empty(); }
    /// Lets sequences in, computes a step and samples. What fails becomes responses.
    Iteration iterate();

private:
    std::string unfit(Job const& job) const;
    std::size_t completion_limit(Request const& request) const;
    void expire();
    void let_in();
    bool start(std::shared_ptr<Job> const& job);
    void step();
    void schedule(Sequence& sequence, std::size_t rows);
    void schedule_all();
    void sample();
    void finish(Sequence& sequence);
    void remove(Job const& job);
    void time_out(std::shared_ptr<Job> const& job);
    void end_early(std::shared_ptr<Job> const& job, Response last);
    void fail_running(std::string const& error);
    std::vector<std::shared_ptr<Job>> jobs() const;

    Engine& engine_;
    Shape shape_;
    ExecutorConfig config_;
    KvCache cache_;
    Sampler sampler_;
    std::deque<std::shared_ptr<Job>> waiting_;
    std::list<Sequence> running_;
    /// Of the step that is being computed.
    std::vector<Sequence*> scheduled_;
    std::vector<Row> rows_;
    std::vector<float> logits_;
    /// What this iteration has to say.
    std::vector<Response> responses_;
    /// Of this iteration, from when the last one ended.
    Statistics statistics_;
    std::atomic<std::size_t> queued_{0};
};

}  // namespace rollforge::contract_double
