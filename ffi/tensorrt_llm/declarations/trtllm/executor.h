// The Executor, and what it is set up and asked with. Members without a `set` or `get` in their name are the declarations'
// own: the stand-in reads them.
#pragma once

#include "types.h"

#include <cstddef>
#include <deque>
#include <filesystem>
#include <list>
#include <memory>

namespace tensorrt_llm::executor {
inline namespace RF_DECLARED {

/// Of the library.
[[nodiscard]] char const* version() noexcept;

class SamplingConfig {
public:
    void setTopK(std::optional<SizeType32> const& value) { topK = value; }
    void setTopP(std::optional<FloatType> const& value) { topP = value; }
    void setMinP(std::optional<FloatType> const& value) { minP = value; }
    void setSeed(std::optional<RandomSeedType> const& value) { seed = value; }
    void setTemperature(std::optional<FloatType> const& value) { temperature = value; }
    void setMinTokens(std::optional<SizeType32> const& value) { minTokens = value; }
    void setRepetitionPenalty(std::optional<FloatType> const& value) { repetitionPenalty = value; }
    void setNumReturnSequences(std::optional<SizeType32> const& value) { numReturnSequences = value; }

    std::optional<SizeType32> topK;
    std::optional<FloatType> topP;
    std::optional<FloatType> minP;
    std::optional<RandomSeedType> seed;
    std::optional<FloatType> temperature;
    std::optional<SizeType32> minTokens;
    std::optional<FloatType> repetitionPenalty;
    std::optional<SizeType32> numReturnSequences;
};

class OutputConfig {
public:
    bool returnLogProbs = false;
    bool returnContextLogits = false;
    bool returnGenerationLogits = false;
    bool excludeInputFromOutput = false;
};

class Request {
public:
    Request(
        VecTokens inputTokenIds, SizeType32 maxTokens, bool streaming = false,
        SamplingConfig const& samplingConfig = SamplingConfig(), OutputConfig const& outputConfig = OutputConfig());

    void setEndId(SizeType32 value) { endId = value; }
    void setPadId(SizeType32 value) { padId = value; }
    void setStopWords(std::list<VecTokens> const& value) { stopWords = value; }
    void setAllottedTimeMs(MillisecondsType value) { allottedTime = value; }
#if RF_DECLARED_HAS_CACHE_SALT
    void setCacheSaltID(CacheSaltIDType value) { cacheSalt = value; }
#endif

    VecTokens inputTokenIds;
    SizeType32 maxTokens;
    bool streaming;
    SamplingConfig sampling;
    OutputConfig output;
    std::optional<SizeType32> endId;
    std::optional<SizeType32> padId;
    std::list<VecTokens> stopWords;
    std::optional<MillisecondsType> allottedTime;
    std::optional<CacheSaltIDType> cacheSalt;
};

struct Result {
    bool isFinal = false;
    BeamTokens outputTokenIds;
    std::optional<std::vector<VecLogProbs>> logProbs;
    std::vector<FinishReason> finishReasons;
    SizeType32 sequenceIndex = 0;
    bool isSequenceFinal = false;
};

class Response {
public:
    Response(IdType requestId, std::string errorMsg);
    Response(IdType requestId, Result result);

    [[nodiscard]] IdType getRequestId() const;
    [[nodiscard]] bool hasError() const;
    [[nodiscard]] std::string const& getErrorMsg() const;
    [[nodiscard]] Result const& getResult() const;

private:
    IdType id_;
    std::optional<std::string> error_;
    Result result_;
};

class KvCacheConfig {
public:
    void setEnableBlockReuse(bool value) { enableBlockReuse = value; }
    void setMaxTokens(RF_DECLARED_MAX_TOKENS value) { maxTokens = value; }
    void setFreeGpuMemoryFraction(FloatType value) { freeGpuMemoryFraction = value; }

    bool enableBlockReuse = true;
    std::optional<SizeType32> maxTokens;
    std::optional<FloatType> freeGpuMemoryFraction;
};

class ParallelConfig {
public:
    void setDeviceIds(std::vector<SizeType32> const& value) { deviceIds = value; }
    void setParticipantIds(std::vector<SizeType32> const& value) { participantIds = value; }

    std::optional<std::vector<SizeType32>> deviceIds;
    std::optional<std::vector<SizeType32>> participantIds;
};

class ExecutorConfig {
public:
    void setMaxBatchSize(SizeType32 value) { maxBatchSize = value; }
    void setMaxNumTokens(SizeType32 value) { maxNumTokens = value; }
    void setKvCacheConfig(KvCacheConfig const& value) { kvCache = value; }
    void setEnableChunkedContext(bool value) { enableChunkedContext = value; }
    void setNormalizeLogProbs(bool value) { normalizeLogProbs = value; }
    void setIterStatsMaxIterations(SizeType32 value) { iterStatsMaxIterations = value; }
    void setParallelConfig(ParallelConfig const& value) { parallel = value; }
    void setMaxQueueSize(std::optional<SizeType32> const& value) { maxQueueSize = value; }
#if RF_DECLARED_HAS_TRT_OVERLAP
    void setEnableTrtOverlap(bool value) { enableTrtOverlap = value; }
#endif

    std::optional<SizeType32> maxBatchSize;
    std::optional<SizeType32> maxNumTokens;
    KvCacheConfig kvCache;
    bool enableChunkedContext = true;
    bool normalizeLogProbs = true;
    SizeType32 iterStatsMaxIterations = 1000;
    std::optional<ParallelConfig> parallel;
    std::optional<SizeType32> maxQueueSize;
    bool enableTrtOverlap = false;
};

class JsonSerialization {
public:
    [[nodiscard]] static std::string toJsonStr(IterationStats const& iterationStats);
};

class Executor {
public:
    Executor(std::filesystem::path const& modelPath, ModelType modelType, ExecutorConfig const& executorConfig);
    Executor(
        BufferView const& engineBuffer, std::string const& jsonConfigStr, ModelType modelType,
        ExecutorConfig const& executorConfig);
    ~Executor();
    Executor(Executor const&) = delete;
    Executor& operator=(Executor const&) = delete;

    [[nodiscard]] IdType enqueueRequest(Request const& request);
    [[nodiscard]] std::vector<Response> awaitResponses(
        std::optional<std::chrono::milliseconds> const& timeout = std::nullopt);
    void cancelRequest(IdType requestId);
    void shutdown();
    [[nodiscard]] std::deque<IterationStats> getLatestIterationStats();
    [[nodiscard]] bool canEnqueueRequests() const;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}
}
