// A request of the contract as TensorRT-LLM's. Only the five arguments of `Request` that no version moved, then setters.

#include "shim/detect.h"
#include "shim/guard.h"
#include "shim/objects.h"

#include <list>

namespace rollforge::shim {
namespace {

namespace tle = ::tensorrt_llm::executor;

void must(bool holds, char const* rule)
{
    if (!holds) {
        throw Failure(RF_INVALID_ARGUMENT, rule);
    }
}

void must_support(bool supported, char const* field)
{
    if (!supported) {
        throw Failure(RF_UNSUPPORTED, std::string("this version of TensorRT-LLM has no ") + field);
    }
}

void check(rf_request const& request)
{
    must(request.prompt != nullptr && request.prompt_len > 0, "prompt must not be empty");
    must(request.max_tokens > 0, "max_tokens must be at least 1");
    must(request.num_return_sequences > 0, "num_return_sequences must be at least 1");
    must(request.temperature > 0, "temperature must be above 0");
    must(request.top_k >= 0, "top_k must be 0 or more");
    must(request.top_p > 0 && request.top_p <= 1, "top_p must be above 0 and at most 1");
    must(request.min_p >= 0 && request.min_p <= 1, "min_p must be between 0 and 1");
    must(request.repetition_penalty > 0, "repetition_penalty must be above 0");
    must(request.min_tokens >= 0, "min_tokens must be 0 or more");
    must(request.allotted_ms >= 0, "allotted_ms must be 0 or more");
}

tle::SamplingConfig sampling_of(rf_request const& request)
{
    tle::SamplingConfig sampling;
    sampling.setSeed(request.seed);
    sampling.setTemperature(request.temperature);
    // Said even where it keeps all: without top-k and top-p TensorRT-LLM is greedy.
    sampling.setTopP(request.top_p);
    if (request.top_k > 0) {
        sampling.setTopK(request.top_k);
    }
    if (request.repetition_penalty != 1) {
        sampling.setRepetitionPenalty(request.repetition_penalty);
    }
    if (request.min_tokens > 0) {
        sampling.setMinTokens(request.min_tokens);
    }
    if (request.min_p > 0) {
        must_support(set_min_p(sampling, request.min_p, 0), "min_p");
    }
    if (request.num_return_sequences > 1) {
        must_support(set_num_return_sequences(sampling, request.num_return_sequences, 0), "num_return_sequences");
    }
    return sampling;
}

std::list<tle::VecTokens> stop_words_of(rf_request const& request)
{
    std::list<tle::VecTokens> words;
    if (request.stop_words_len == 0) {
        return words;
    }
    std::int32_t const* next = &require(request.stop_words, "stop_words");
    std::uint64_t const* lengths = &require(request.stop_word_lens, "stop_word_lens");
    for (std::uint64_t i = 0; i < request.stop_words_len; ++i) {
        must(lengths[i] > 0, "a stop word must not be empty");
        words.emplace_back(next, next + lengths[i]);
        next += lengths[i];
    }
    return words;
}

}

tle::Request request_of(rf_request const& request)
{
    check(request);
    tle::OutputConfig output;
    output.returnLogProbs = request.return_log_probs != 0;
    output.excludeInputFromOutput = true;
    tle::Request built(
        tle::VecTokens(request.prompt, request.prompt + request.prompt_len), request.max_tokens, request.streaming != 0,
        sampling_of(request), output);
    // Left unset, no token ends a sequence.
    if (request.end_id >= 0) {
        built.setEndId(request.end_id);
    }
    if (request.pad_id >= 0) {
        built.setPadId(request.pad_id);
    }
    if (request.stop_words_len > 0) {
        built.setStopWords(stop_words_of(request));
    }
    if (request.cache_salt != 0) {
        must_support(set_cache_salt(built, request.cache_salt, 0), "cache_salt");
    }
    if (request.allotted_ms > 0) {
        must_support(set_allotted_time(built, std::chrono::milliseconds(request.allotted_ms), 0), "allotted_ms");
    }
    return built;
}

}
