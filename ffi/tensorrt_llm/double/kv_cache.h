// Keys and values of all sequences, in blocks that sequences of equal beginnings share.
//
// A full block is found again by a hash over everything before it, beginning with the request's salt. What is in a block
// was computed with the weights of its time: after a refit it is stale, and found all the same by requests of equal salt.

#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

namespace rollforge::contract_double {

/// A sequence's blocks.
struct KvTable {
    std::vector<uint32_t> blocks;
    /// Blocks at the front that can be found by others, and the hash up to there.
    std::size_t indexed = 0;
    uint64_t hash = 0;
};

/// Counters in TensorRT-LLM's words (kvCacheStats).
struct KvStats {
    std::size_t max_blocks = 0;
    std::size_t free_blocks = 0;
    std::size_t alloc_total = 0;
    std::size_t alloc_new = 0;
    std::size_t reused = 0;
    std::size_t missed = 0;
};

/// What a cache is made for.
struct KvLayout {
    std::size_t layers = 0;
    /// Numbers of one position's keys in one layer; as many values.
    std::size_t width = 0;
    std::size_t tokens_per_block = 0;
    std::size_t blocks = 0;
    bool reuse = false;
};

/// A pool of blocks. Memory of a block is taken at its first use.
class KvCache {
public:
    explicit KvCache(KvLayout const& layout);

    /// Returns how many blocks hold so many positions.
    std::size_t blocks_for(std::size_t positions) const;
    std::size_t free_blocks() const { return free_.size(); }
    KvLayout const& layout() const { return layout_; }

    /// Takes blocks for `positions`, found ones for the prompt's beginning where reuse is on. Returns how many positions
    /// need not be computed: always less than the prompt. False when too few blocks are free; nothing is taken then.
    bool admit(std::vector<int32_t> const& prompt, uint64_t salt, std::size_t positions, KvTable& table,
               std::size_t& reused);
    /// Makes full blocks findable, now that the first `computed` positions are in them.
    void index(std::vector<int32_t> const& tokens, std::size_t computed, KvTable& table);
    /// Gives the blocks back; findable ones can be found until they are taken for something else.
    void release(KvTable& table);

    /// Returns the keys, or values, of one position in one layer.
    float* key(KvTable const& table, std::size_t layer, std::size_t position);
    float* value(KvTable const& table, std::size_t layer, std::size_t position);

    KvStats stats() const;

private:
    struct Block {
        std::vector<float> numbers;
        std::size_t users = 0;
        bool indexed = false;
        uint64_t before = 0;
        uint64_t hash = 0;
        std::vector<int32_t> tokens;
        std::list<uint32_t>::iterator place;
    };

    /// Returns the findable block of these tokens after this hash, or the number of blocks.
    std::size_t find(uint64_t before, int32_t const* tokens, uint64_t hash) const;
    uint64_t hash_block(uint64_t before, int32_t const* tokens) const;
    void use(uint32_t block);
    uint32_t take();

    KvLayout layout_;
    std::vector<Block> blocks_;
    /// Unused ones, the next to be taken first.
    std::list<uint32_t> free_;
    std::unordered_map<uint64_t, uint32_t> index_;
    KvStats stats_;
};

}  // namespace rollforge::contract_double
