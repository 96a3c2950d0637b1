#include "batch.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <new>
#include <utility>

namespace rollforge::contract_double {
namespace {

std::size_t smaller(std::size_t of_plan, std::size_t of_config) {
    return of_config == 0 ? of_plan : std::min(of_plan, of_config);
}

ExecutorConfig resolved(Shape const& shape, ExecutorConfig config) {
    config.max_batch_size = smaller(shape.max_batch_size, config.max_batch_size);
    config.max_num_tokens = smaller(shape.max_num_tokens, config.max_num_tokens);
    config.kv_max_tokens = smaller(shape.kv_blocks * shape.tokens_per_block, config.kv_max_tokens);
    return config;
}

KvLayout layout(Shape const& shape, ExecutorConfig const& config) {
    std::size_t const blocks = (config.kv_max_tokens + shape.tokens_per_block - 1) / shape.tokens_per_block;
    return {shape.num_layers, shape.kv_size(), shape.tokens_per_block, blocks, config.block_reuse};
}

}  // namespace

Batch::Batch(Engine& engine, ExecutorConfig const& config)
    : engine_(engine),
      shape_(engine.plan().shape),
      config_(resolved(shape_, config)),
      cache_(layout(shape_, config_)) {
    statistics_.iteration = 1;
}

void Batch::add(std::shared_ptr<Job> const& job) {
    waiting_.push_back(job);
    Response refusal;
    refusal.error = unfit(*job);
    if (!refusal.error.empty()) end_early(job, std::move(refusal));
}

void Batch::cancel(uint64_t id) {
    Response last;
    bool const reported = (engine_.plan().lacks & RF_CAN_REPORT_CANCEL) == 0;
    last.finish_reason = reported ? RF_CANCELLED : RF_NOT_FINISHED;
    last.is_sequence_final = true;
    for (std::shared_ptr<Job> const& job : jobs())
        if (job->id == id) end_early(job, last);
}

Iteration Batch::iterate() {
    auto const start = std::chrono::steady_clock::now();
    try {
        expire();
        let_in();
        step();
    } catch (std::bad_alloc const&) {
        fail_running("host memory is used up");
    } catch (std::exception const& error) {
        fail_running(error.what());
    } catch (...) {
        fail_running("something was thrown that is no std::exception");
    }
    std::chrono::duration<double, std::milli> const took = std::chrono::steady_clock::now() - start;
    statistics_.latency_ms = took.count();
    statistics_.active = running_.size();
    statistics_.queued = queued_;
    statistics_.max_active = config_.max_batch_size;
    statistics_.max_tokens = config_.max_num_tokens;
    statistics_.tokens_per_block = shape_.tokens_per_block;
    statistics_.kv = cache_.stats();
    Statistics next;
    next.iteration = statistics_.iteration + 1;
    return {std::exchange(statistics_, next), std::exchange(responses_, {})};
}

/// Returns why a request can never be answered; "" if it can.
std::string Batch::unfit(Job const& job) const {
    Request const& request = job.request;
    if (job.doomed) return "scripted fault: enqueue error_response";
    if (engine_.is_partial()) return "the engine was refitted in part and must not generate";
    std::size_t const length = request.prompt.size();
    for (int32_t const token : request.prompt)
        if (token < 0 || static_cast<std::size_t>(token) >= shape_.vocab_size)
            return "prompt must hold token ids below " + std::to_string(shape_.vocab_size) + ", found " +
                   std::to_string(token);
    std::size_t const chunk = config_.chunked_context ? length : config_.max_num_tokens;
    std::size_t const longest = std::min(chunk, shape_.max_seq_len - 1);
    if (length > longest)
        return "prompt must be at most " + std::to_string(longest) + " tokens long, found " + std::to_string(length);
    std::size_t const blocks = cache_.blocks_for(length + completion_limit(request));
    if (blocks > cache_.layout().blocks)
        return "a request may need " + std::to_string(cache_.layout().blocks) + " KV blocks, found " +
               std::to_string(blocks);
    return "";
}

/// TensorRT-LLM shortens a completion to what `max_seq_len` has room for.
std::size_t Batch::completion_limit(Request const& request) const {
    return std::min(static_cast<std::size_t>(request.max_tokens), shape_.max_seq_len - request.prompt.size());
}

void Batch::expire() {
    auto const now = std::chrono::steady_clock::now();
    for (std::shared_ptr<Job> const& job : jobs())
        if (job->deadline && now >= *job->deadline) time_out(job);
}

void Batch::let_in() {
    while (!waiting_.empty() && running_.size() < config_.max_batch_size) {
        std::shared_ptr<Job> const job = waiting_.front();
        if (!start(job)) return;
        if (job->is_started()) waiting_.pop_front();
    }
}

/// Puts the job's next sequence into the batch; false when the cache has no room for it now.
bool Batch::start(std::shared_ptr<Job> const& job) {
    Request const& request = job->request;
    Sequence& sequence = running_.emplace_back();
    sequence.job = job;
    sequence.index = job->started;
    sequence.tokens = request.prompt;
    sequence.max_tokens = completion_limit(request);
    std::size_t const positions = request.prompt.size() + sequence.max_tokens;
    if (!cache_.admit(request.prompt, request.cache_salt, positions, sequence.table, sequence.computed)) {
        running_.pop_back();
        return false;
    }
    if (job->started++ == 0) --queued_;
    ++statistics_.new_active;
    return true;
}

void Batch::step() {
    schedule_all();
    if (rows_.empty()) return;
    engine_.faults().reach("step");
    engine_.model().forward(rows_, cache_, logits_);
    sample();
}

/// Generation first, then prompts in the order of arrival, as far as `max_num_tokens` reaches.
void Batch::schedule_all() {
    rows_.clear();
    scheduled_.clear();
    for (Sequence& sequence : running_) {
        if (sequence.is_prefill() || rows_.size() == config_.max_num_tokens) continue;
        schedule(sequence, 1);
        ++statistics_.generation_requests;
    }
    for (Sequence& sequence : running_) {
        if (!sequence.is_prefill()) continue;
        std::size_t const left = sequence.tokens.size() - sequence.computed;
        std::size_t const room = config_.max_num_tokens - rows_.size();
        if (room == 0 || (room < left && !config_.chunked_context)) return;
        std::size_t const rows = std::min(left, room);
        schedule(sequence, rows);
        ++statistics_.context_requests;
        statistics_.context_tokens += rows;
    }
}

void Batch::schedule(Sequence& sequence, std::size_t rows) {
    scheduled_.push_back(&sequence);
    sequence.scheduled = rows;
    for (std::size_t row = 0; row < rows; ++row) {
        std::size_t const position = sequence.computed + row;
        bool const last = position + 1 == sequence.tokens.size();
        rows_.push_back({sequence.tokens[position], position, &sequence.table, last});
    }
}

void Batch::sample() {
    float const* logits = logits_.data();
    std::vector<std::shared_ptr<Job>> broken;
    for (Sequence* const sequence : scheduled_) {
        sequence->computed += sequence->scheduled;
        cache_.index(sequence->tokens, sequence->computed, sequence->table);
        if (sequence->computed < sequence->tokens.size()) continue;
        Job& job = *sequence->job;
        Sampling const& sampling = job.request.sampling;
        DrawKey const key{sampling.seed, sequence->index, sequence->generated()};
        auto const drawn = sampler_.draw(logits, shape_.vocab_size, sampling, sequence->tokens, key);
        logits += shape_.vocab_size;
        if (!drawn) {
            broken.push_back(sequence->job);
            continue;
        }
        sequence->append(drawn->token, drawn->log_prob);
        if (sequence->finish_reason != RF_NOT_FINISHED) {
            finish(*sequence);
        } else if (job.request.streaming) {
            responses_.push_back(sequence->respond());
        }
    }
    running_.remove_if([](Sequence const& sequence) { return sequence.finish_reason != RF_NOT_FINISHED; });
    Response last;
    last.error = "a logit is not a number";
    for (std::shared_ptr<Job> const& job : broken)
        if (job->pass) end_early(job, last);
}

/// Says how a sequence ended. Its place in the batch is the caller's to clear.
void Batch::finish(Sequence& sequence) {
    cache_.release(sequence.table);
    Response response = sequence.respond();
    response.is_final = sequence.job->end_one();
    if (response.is_final) ++statistics_.completed;
    responses_.push_back(std::move(response));
}

/// Takes a job out of queue and batch.
void Batch::remove(Job const& job) {
    if (job.started == 0) --queued_;
    waiting_.erase(std::remove_if(waiting_.begin(), waiting_.end(), [&](auto const& one) { return one.get() == &job; }),
                   waiting_.end());
    for (auto sequence = running_.begin(); sequence != running_.end();) {
        bool const own = sequence->job.get() == &job;
        if (own) cache_.release(sequence->table);
        sequence = own ? running_.erase(sequence) : std::next(sequence);
    }
}

/// Ends every sequence that has not ended, each with what it has.
void Batch::time_out(std::shared_ptr<Job> const& job) {
    std::vector<Response> last;
    for (Sequence& sequence : running_)
        if (sequence.job == job) last.push_back(sequence.respond());
    for (int32_t index = job->started; index < job->request.num_return_sequences; ++index) {
        last.emplace_back();
        last.back().request_id = job->id;
        last.back().sequence_index = index;
    }
    remove(*job);
    bool const reported = (engine_.plan().lacks & RF_CAN_REPORT_CANCEL) == 0;
    for (Response& response : last) {
        response.finish_reason = reported ? RF_TIMED_OUT : RF_NOT_FINISHED;
        response.is_sequence_final = true;
        response.is_final = job->end_one();
        responses_.push_back(std::move(response));
    }
    ++statistics_.completed;
}

/// Ends a request with one last response.
void Batch::end_early(std::shared_ptr<Job> const& job, Response last) {
    remove(*job);
    job->pass.reset();
    last.request_id = job->id;
    last.is_final = true;
    responses_.push_back(std::move(last));
    ++statistics_.completed;
}

/// Ends what is in the batch, or what waits where nothing is: otherwise the same failure would come again and again.
void Batch::fail_running(std::string const& error) {
    Response last;
    last.error = error;
    bool const any = !running_.empty();
    for (std::shared_ptr<Job> const& job : jobs())
        if (job->started > 0 || !any) end_early(job, last);
}

std::vector<std::shared_ptr<Job>> Batch::jobs() const {
    std::vector<std::shared_ptr<Job>> all(waiting_.begin(), waiting_.end());
    for (Sequence const& sequence : running_)
        if (std::find(all.begin(), all.end(), sequence.job) == all.end()) all.push_back(sequence.job);
    return all;
}

}  // namespace rollforge::contract_double
