// TensorRT-LLM's responses, passed through as they are.

#include "shim/guard.h"
#include "shim/objects.h"

namespace rollforge::shim {
namespace {

namespace tle = ::tensorrt_llm::executor;

rf_status get(rf_responses const* responses, std::uint64_t index, rf_response* out)
{
    return guard([&] {
        auto const& answers = require(behind(responses), "responses").answers;
        if (index >= answers.size()) {
            throw Failure(
                RF_INVALID_ARGUMENT,
                "there are " + std::to_string(answers.size()) + " responses, none with index " + std::to_string(index));
        }
        Answer const& answer = answers[index];
        rf_response& response = require(out, "out");
        response = {};
        response.request_id = answer.request_id;
        response.sequence_index = answer.sequence_index;
        response.tokens = answer.tokens.data();
        response.tokens_len = answer.tokens.size();
        response.log_probs = answer.log_probs.data();
        response.log_probs_len = answer.log_probs.size();
        response.finish_reason = answer.finish_reason;
        response.is_sequence_final = answer.is_sequence_final ? 1 : 0;
        response.is_final = answer.is_final ? 1 : 0;
        response.error = answer.error ? answer.error->c_str() : nullptr;
    });
}

std::uint64_t length(rf_responses const* responses)
{
    return responses == nullptr ? 0 : behind(responses)->answers.size();
}

void free_responses(rf_responses* responses)
{
    delete behind(responses);
}

}

Answer answer_of(tle::Response const& response)
{
    Answer answer;
    answer.request_id = response.getRequestId();
    if (response.hasError()) {
        answer.error = response.getErrorMsg();
        return answer;
    }
    tle::Result const& result = response.getResult();
    answer.sequence_index = result.sequenceIndex;
    answer.is_sequence_final = result.isSequenceFinal;
    answer.is_final = result.isFinal;
    // One beam: the first of each list.
    if (!result.outputTokenIds.empty()) {
        answer.tokens = result.outputTokenIds.front();
    }
    if (result.logProbs && !result.logProbs->empty()) {
        answer.log_probs = result.logProbs->front();
    }
    if (!result.finishReasons.empty()) {
        answer.finish_reason = static_cast<std::int32_t>(result.finishReasons.front());
    }
    return answer;
}

void add_responses(rf_api& api)
{
    api.responses_len = length;
    api.responses_get = get;
    api.responses_free = free_responses;
}

}
