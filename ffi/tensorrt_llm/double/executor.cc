#include "executor.h"

#include "failure.h"

#include <optional>
#include <utility>

namespace rollforge::contract_double {

Executor::Executor(std::shared_ptr<Engine> engine, ExecutorConfig const& config)
    : engine_(std::move(engine)), config_(config), batch_(*engine_, config) {
    std::optional<Fault> const fault = engine_->faults().reach("create");
    leader_ = !(fault && fault->what == "non_leader");
    engine_->model();
    thread_ = std::thread([this] { run(); });
}

Executor::~Executor() {
    {
        std::lock_guard<std::mutex> const lock(mutex_);
        stopping_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

uint64_t Executor::enqueue(Request request) {
    std::optional<Fault> const fault = engine_->faults().reach("enqueue");
    if (!leader_) throw Failure(RF_INVALID_STATE, "only the leader may enqueue requests");
    request.validate();
    check(request);
    if (config_.max_queue_size > 0 && batch_.queued() >= config_.max_queue_size)
        throw Failure(RF_INVALID_STATE, "the queue is full: max_queue_size is " + std::to_string(config_.max_queue_size));
    auto job = std::make_shared<Job>();
    job->doomed = fault && fault->what == "error_response";
    if (fault && fault->what == "stale_kv") request.cache_salt = 0;
    if (request.allotted_ms > 0)
        job->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(request.allotted_ms);
    job->request = std::move(request);
    job->pass = std::make_unique<Engine::Pass>(engine_);
    std::lock_guard<std::mutex> const lock(mutex_);
    bool const again = fault && fault->what == "duplicate_id" && last_id_ > 0;
    job->id = again ? last_id_ : ++last_id_;
    uint64_t const id = job->id;
    arrived_.push_back(std::move(job));
    batch_.expect();
    changed_.notify_all();
    return id;
}

/// Refuses what this engine lacks.
void Executor::check(Request const& request) const {
    if (request.cache_salt != 0) engine_->require(RF_CAN_CACHE_SALT, "cache salts");
    if (request.num_return_sequences > 1) engine_->require(RF_CAN_RETURN_SEQUENCES, "several sequences per request");
    if (request.sampling.min_p > 0) engine_->require(RF_CAN_MIN_P, "min-p");
    if (request.allotted_ms > 0) engine_->require(RF_CAN_ALLOTTED_TIME, "time limits");
}

std::vector<Response> Executor::await(std::chrono::milliseconds timeout) {
    return outbox_.take(timeout, engine_->faults());
}

void Executor::cancel(uint64_t id) {
    engine_->faults().reach("cancel");
    std::lock_guard<std::mutex> const lock(mutex_);
    cancelled_.push_back(id);
    changed_.notify_all();
}

std::string Executor::statistics() {
    engine_->faults().reach("stats");
    std::lock_guard<std::mutex> const lock(mutex_);
    return std::exchange(statistics_, {});
}

void Executor::run() {
    while (fetch()) {
        Iteration iteration = batch_.iterate();
        std::string json = iteration.statistics.json();
        {
            // Whoever has seen a response finds the statistics of its iteration.
            std::lock_guard<std::mutex> const lock(mutex_);
            statistics_ = std::move(json);
        }
        outbox_.put(std::move(iteration.responses));
    }
}

bool Executor::fetch() {
    std::deque<std::shared_ptr<Job>> arrived;
    std::vector<uint64_t> cancelled;
    {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !batch_.is_idle(); });
        if (stopping_) return false;
        arrived.swap(arrived_);
        cancelled.swap(cancelled_);
    }
    for (std::shared_ptr<Job> const& job : arrived) batch_.add(job);
    for (uint64_t const id : cancelled) batch_.cancel(id);
    return true;
}

}  // namespace rollforge::contract_double
