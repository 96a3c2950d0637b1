// The declared Executor over the contract double, so that the real shim runs where TensorRT-LLM is not installed.

#include "stand_in/double.h"

#include "tensorrt_llm/executor/executor.h"
#include "tensorrt_llm/executor/version.h"
#include "tensorrt_llm/plugins/api/tllmPlugin.h"

#include <NvInferRuntime.h>

#include <cstring>
#include <new>
#include <stdexcept>

namespace rollforge::stand_in {

void check(rf_status status)
{
    if (status == RF_OK) {
        return;
    }
    std::string const sentence = contract_double().last_error();
    if (status == RF_OUT_OF_MEMORY) {
        throw std::runtime_error("[TensorRT-LLM][ERROR] CUDA runtime error: out of memory: " + sentence);
    }
    if (status == RF_INVALID_ARGUMENT) {
        throw std::invalid_argument(sentence);
    }
    throw std::runtime_error(sentence);
}

namespace {

/// TensorRT-LLM has a logger of its own, not the shim's.
class OwnLogger final : public nvinfer1::ILogger {
public:
    void log(Severity, nvinfer1::AsciiChar const*) noexcept override {}
};

}
}

namespace tensorrt_llm::executor {
inline namespace RF_DECLARED {

using rollforge::stand_in::check;
using rollforge::stand_in::contract_double;

namespace {

rf_executor_config settings_of(ExecutorConfig const& config)
{
    rf_executor_config settings = {};
    settings.max_batch_size = config.maxBatchSize.value_or(0);
    settings.max_num_tokens = config.maxNumTokens.value_or(0);
    settings.kv_max_tokens = config.kvCache.maxTokens.value_or(0);
    settings.kv_free_fraction = config.kvCache.freeGpuMemoryFraction.value_or(0);
    settings.block_reuse = config.kvCache.enableBlockReuse ? 1 : 0;
    settings.chunked_context = config.enableChunkedContext ? 1 : 0;
    settings.iteration_stats = config.iterStatsMaxIterations;
    settings.max_queue_size = config.maxQueueSize.value_or(0);
    settings.capture_engine = 1;
    if (config.parallel && config.parallel->deviceIds) {
        settings.device_ids = config.parallel->deviceIds->data();
        settings.device_ids_len = config.parallel->deviceIds->size();
    }
    if (config.parallel && config.parallel->participantIds) {
        settings.participant_ids = config.parallel->participantIds->data();
        settings.participant_ids_len = config.parallel->participantIds->size();
    }
    return settings;
}

/// A request in the contract's form; `lengths` and `words` must outlive it.
rf_request plain(Request const& request, std::vector<TokenIdType>& words, std::vector<std::uint64_t>& lengths)
{
    for (VecTokens const& word : request.stopWords) {
        words.insert(words.end(), word.begin(), word.end());
        lengths.push_back(word.size());
    }
    rf_request built = {};
    built.prompt = request.inputTokenIds.data();
    built.prompt_len = request.inputTokenIds.size();
    built.max_tokens = request.maxTokens;
    built.streaming = request.streaming ? 1 : 0;
    built.num_return_sequences = request.sampling.numReturnSequences.value_or(1);
    built.return_log_probs = request.output.returnLogProbs ? 1 : 0;
    built.seed = request.sampling.seed.value_or(0);
    built.temperature = request.sampling.temperature.value_or(1);
    // Neither top-k nor top-p is greedy.
    bool const greedy = !request.sampling.topK && !request.sampling.topP;
    built.top_k = greedy ? 1 : request.sampling.topK.value_or(0);
    built.top_p = request.sampling.topP.value_or(1);
    built.min_p = request.sampling.minP.value_or(0);
    built.repetition_penalty = request.sampling.repetitionPenalty.value_or(1);
    built.min_tokens = request.sampling.minTokens.value_or(0);
    built.end_id = request.endId.value_or(-1);
    built.pad_id = request.padId.value_or(built.end_id);
    built.stop_words = words.data();
    built.stop_word_lens = lengths.data();
    built.stop_words_len = lengths.size();
    built.cache_salt = request.cacheSalt.value_or(0);
    built.allotted_ms = request.allottedTime.value_or(MillisecondsType(0)).count();
    return built;
}

Response response_of(rf_response const& response)
{
    if (response.error != nullptr) {
        return {response.request_id, std::string(response.error)};
    }
    Result result;
    result.isFinal = response.is_final != 0;
    result.isSequenceFinal = response.is_sequence_final != 0;
    result.sequenceIndex = response.sequence_index;
    result.outputTokenIds.emplace_back(response.tokens, response.tokens + response.tokens_len);
    result.finishReasons.push_back(static_cast<FinishReason>(response.finish_reason));
    if (response.log_probs_len > 0) {
        result.logProbs.emplace();
        result.logProbs->emplace_back(response.log_probs, response.log_probs + response.log_probs_len);
    }
    return {response.request_id, std::move(result)};
}

}

char const* version() noexcept
{
    return kTensorRtLlmVersion;
}

Request::Request(
    VecTokens inputTokenIds, SizeType32 maxTokens, bool streaming, SamplingConfig const& samplingConfig,
    OutputConfig const& outputConfig)
    : inputTokenIds(std::move(inputTokenIds)), maxTokens(maxTokens), streaming(streaming), sampling(samplingConfig),
      output(outputConfig)
{
}

Response::Response(IdType requestId, std::string errorMsg) : id_(requestId), error_(std::move(errorMsg)) {}

Response::Response(IdType requestId, Result result) : id_(requestId), result_(std::move(result)) {}

IdType Response::getRequestId() const
{
    return id_;
}

bool Response::hasError() const
{
    return error_.has_value();
}

std::string const& Response::getErrorMsg() const
{
    return error_.value();
}

Result const& Response::getResult() const
{
    if (error_) {
        throw std::runtime_error(*error_);
    }
    return result_;
}

std::string JsonSerialization::toJsonStr(IterationStats const& iterationStats)
{
    return iterationStats.timestamp;
}

class Executor::Impl {
public:
    explicit Impl(rf_executor* started) : executor(started) {}
    ~Impl()
    {
        engine_.reset();
        runtime_.reset();
        shutdown();
    }
    Impl(Impl const&) = delete;
    Impl& operator=(Impl const&) = delete;

    /// Loads the double's engine the way TensorRT-LLM loads its own, so that a capture sees it. Where the double does not
    /// give its engine out, none is loaded.
    void load_engine()
    {
        rollforge::stand_in::LiveEngineBlob blob = {};
        std::memcpy(blob.magic, rollforge::stand_in::kLiveEngine, sizeof(blob.magic));
        if (contract_double().executor_engine(executor, &blob.engine) != RF_OK) {
            return;
        }
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        engine_.reset(runtime_->deserializeCudaEngine(&blob, sizeof(blob)));
    }

    void shutdown()
    {
        contract_double().executor_destroy(executor);
        executor = nullptr;
    }

    rf_executor* executor;

private:
    rollforge::stand_in::OwnLogger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

Executor::Executor(std::filesystem::path const& modelPath, ModelType, ExecutorConfig const& executorConfig)
{
    rf_executor_config const settings = settings_of(executorConfig);
    rf_executor* started = nullptr;
    check(contract_double().executor_create(modelPath.c_str(), &settings, &started));
    impl_ = std::make_unique<Impl>(started);
    impl_->load_engine();
}

Executor::Executor(
    BufferView const& engineBuffer, std::string const& jsonConfigStr, ModelType, ExecutorConfig const& executorConfig)
{
    rf_executor_config const settings = settings_of(executorConfig);
    rf_executor* started = nullptr;
    check(contract_double().executor_create_from_plan(
        engineBuffer.data(), engineBuffer.size(), jsonConfigStr.c_str(), &settings, &started));
    impl_ = std::make_unique<Impl>(started);
    impl_->load_engine();
}

Executor::~Executor() = default;

IdType Executor::enqueueRequest(Request const& request)
{
    std::vector<TokenIdType> words;
    std::vector<std::uint64_t> lengths;
    rf_request const built = plain(request, words, lengths);
    IdType id = 0;
    check(contract_double().executor_enqueue(impl_->executor, &built, &id));
    return id;
}

std::vector<Response> Executor::awaitResponses(std::optional<std::chrono::milliseconds> const& timeout)
{
    rf_responses* waiting = nullptr;
    check(contract_double().executor_await(impl_->executor, timeout.value_or(std::chrono::hours(24)).count(), &waiting));
    std::unique_ptr<rf_responses, void (*)(rf_responses*)> const responses(waiting, contract_double().responses_free);
    std::vector<Response> copied;
    for (std::uint64_t i = 0; i < contract_double().responses_len(waiting); ++i) {
        rf_response response = {};
        check(contract_double().responses_get(waiting, i, &response));
        copied.push_back(response_of(response));
    }
    return copied;
}

void Executor::cancelRequest(IdType requestId)
{
    check(contract_double().executor_cancel(impl_->executor, requestId));
}

void Executor::shutdown()
{
    impl_->shutdown();
}

std::deque<IterationStats> Executor::getLatestIterationStats()
{
    rf_buffer* given = nullptr;
    check(contract_double().executor_stats(impl_->executor, &given));
    std::unique_ptr<rf_buffer, void (*)(rf_buffer*)> const buffer(given, contract_double().buffer_free);
    std::uint64_t const length = contract_double().buffer_len(given);
    if (length == 0) {
        return {};
    }
    auto const* const text = reinterpret_cast<char const*>(contract_double().buffer_data(given));
    return {IterationStats{std::string(text, length)}};
}

bool Executor::canEnqueueRequests() const
{
    std::int32_t can = 0;
    check(contract_double().executor_can_enqueue(impl_->executor, &can));
    return can != 0;
}

}
}

extern "C" bool initTrtLlmPlugins(void*, char const*)
{
    return true;
}
