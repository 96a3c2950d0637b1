#include "request.h"

#include "failure.h"

#include <cmath>

namespace rollforge::contract_double {
namespace {

template <typename Number>
void rule(bool holds, char const* field, char const* wanted, Number found) {
    if (!holds) require(false, std::string(field) + " must be " + wanted + ", found " + std::to_string(found));
}

}  // namespace

void Request::validate() const {
    rule(!prompt.empty(), "prompt", "at least one token long", prompt.size());
    rule(max_tokens >= 1, "max_tokens", "at least 1", max_tokens);
    bool const sequences = num_return_sequences >= 1 && num_return_sequences <= 65'536;
    rule(sequences, "num_return_sequences", "from 1 to 65536", num_return_sequences);
    rule(std::isfinite(sampling.temperature) && sampling.temperature > 0, "temperature", "above 0 and finite",
         sampling.temperature);
    rule(sampling.top_k >= 0, "top_k", "at least 0", sampling.top_k);
    rule(sampling.top_p >= 0 && sampling.top_p <= 1, "top_p", "from 0 to 1", sampling.top_p);
    rule(sampling.min_p >= 0 && sampling.min_p <= 1, "min_p", "from 0 to 1", sampling.min_p);
    bool const penalty = std::isfinite(sampling.repetition_penalty) && sampling.repetition_penalty > 0;
    rule(penalty, "repetition_penalty", "above 0 and finite", sampling.repetition_penalty);
    rule(sampling.min_tokens >= 0, "min_tokens", "at least 0", sampling.min_tokens);
    rule(sampling.end_id >= -1, "end_id", "a token id or -1", sampling.end_id);
    rule(allotted_ms >= 0, "allotted_ms", "at least 0", allotted_ms);
    for (std::vector<int32_t> const& word : stop_words)
        rule(!word.empty(), "stop word", "at least one token long", word.size());
}

}  // namespace rollforge::contract_double
