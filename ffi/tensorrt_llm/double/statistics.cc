#include "statistics.h"

#include <chrono>
#include <locale>
#include <sstream>

namespace rollforge::contract_double {
namespace {

/// Writes one JSON object of numbers and objects.
class Object {
public:
    explicit Object(std::ostream& out) : out_(out) { out_ << '{'; }

    std::ostream& key(char const* name) {
        out_ << (first_ ? "\"" : ",\"") << name << "\":";
        first_ = false;
        return out_;
    }

    template <typename Number>
    void add(char const* name, Number value) { key(name) << value; }

    void close() { out_ << '}'; }

private:
    std::ostream& out_;
    bool first_ = true;
};

void write_kv(std::ostream& out, Statistics const& stats) {
    KvStats const& kv = stats.kv;
    std::size_t const looked_up = kv.reused + kv.missed;
    Object object(out);
    object.add("maxNumBlocks", kv.max_blocks);
    object.add("freeNumBlocks", kv.free_blocks);
    object.add("usedNumBlocks", kv.max_blocks - kv.free_blocks);
    object.add("tokensPerBlock", stats.tokens_per_block);
    object.add("allocTotalBlocks", kv.alloc_total);
    object.add("allocNewBlocks", kv.alloc_new);
    object.add("reusedBlocks", kv.reused);
    object.add("missedBlocks", kv.missed);
    object.add("cacheHitRate", looked_up == 0 ? 0.0 : static_cast<double>(kv.reused) / static_cast<double>(looked_up));
    object.close();
}

void write_batching(std::ostream& out, Statistics const& stats) {
    Object object(out);
    object.add("numScheduledRequests", stats.context_requests + stats.generation_requests);
    object.add("numContextRequests", stats.context_requests);
    object.add("numGenRequests", stats.generation_requests);
    object.add("numPausedRequests", 0);
    object.add("numCtxTokens", stats.context_tokens);
    object.add("microBatchId", 0);
    object.add("avgNumDecodedTokensPerIter", stats.generation_requests > 0 ? 1 : 0);
    object.close();
}

}  // namespace

std::string Statistics::json() const {
    std::ostringstream out;
    out.imbue(std::locale::classic());
    auto const now = std::chrono::system_clock::now().time_since_epoch();
    Object object(out);
    object.key("timestamp") << '"' << std::chrono::duration_cast<std::chrono::microseconds>(now).count() << '"';
    object.add("iter", iteration);
    object.add("iterLatencyMS", latency_ms);
    object.add("newActiveRequestsQueueLatencyMS", 0);
    object.add("numNewActiveRequests", new_active);
    object.add("numActiveRequests", active);
    object.add("numQueuedRequests", queued);
    object.add("numCompletedRequests", completed);
    object.add("maxNumActiveRequests", max_active);
    object.add("maxBatchSizeStatic", max_active);
    object.add("maxBatchSizeRuntime", max_active);
    object.add("maxNumTokensStatic", max_tokens);
    object.add("maxNumTokensRuntime", max_tokens);
    object.add("gpuMemUsage", 0);
    object.add("cpuMemUsage", 0);
    object.add("pinnedMemUsage", 0);
    write_kv(object.key("kvCacheStats"), *this);
    write_batching(object.key("inflightBatchingStats"), *this);
    object.close();
    return out.str();
}

}  // namespace rollforge::contract_double
