#include "sequence.h"

#include <algorithm>

namespace rollforge::contract_double {

bool Job::end_one() {
    if (++ended < request.num_return_sequences) return false;
    pass.reset();
    return true;
}

void Sequence::append(int32_t token, float log_prob) {
    // TensorRT-LLM does not lengthen a sequence by its end id, so nobody gets to see it.
    if (token == job->request.sampling.end_id) {
        finish_reason = RF_END_ID;
        return;
    }
    tokens.push_back(token);
    log_probs.push_back(log_prob);
    finish_reason = reason();
}

int32_t Sequence::reason() const {
    Request const& request = job->request;
    for (std::vector<int32_t> const& word : request.stop_words) {
        // A stop word may not begin in the prompt.
        bool const fits = word.size() <= generated();
        if (fits && std::equal(word.rbegin(), word.rend(), tokens.rbegin())) return RF_STOP_WORDS;
    }
    return generated() >= max_tokens ? RF_LENGTH : RF_NOT_FINISHED;
}

Response Sequence::respond() {
    Request const& request = job->request;
    Response response;
    response.request_id = job->id;
    response.sequence_index = index;
    std::size_t const first = request.prompt.size() + (request.streaming ? sent : 0);
    response.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(first), tokens.end());
    sent = generated();
    // TensorRT-LLM sends the log-probs of all tokens so far, also when streaming.
    if (request.return_log_probs) response.log_probs = log_probs;
    response.finish_reason = finish_reason;
    response.is_sequence_final = finish_reason != RF_NOT_FINISHED;
    return response;
}

}  // namespace rollforge::contract_double
