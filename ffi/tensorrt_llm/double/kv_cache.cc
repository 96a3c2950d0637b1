#include "kv_cache.h"

#include "mix.h"

#include <algorithm>

namespace rollforge::contract_double {

KvCache::KvCache(KvLayout const& layout) : layout_(layout), blocks_(layout.blocks) {
    for (uint32_t block = 0; block < layout.blocks; ++block) blocks_[block].place = free_.insert(free_.end(), block);
    stats_.max_blocks = layout.blocks;
}

std::size_t KvCache::blocks_for(std::size_t positions) const {
    return (positions + layout_.tokens_per_block - 1) / layout_.tokens_per_block;
}

bool KvCache::admit(std::vector<int32_t> const& prompt, uint64_t salt, std::size_t positions, KvTable& table,
                    std::size_t& reused) {
    std::size_t const size = layout_.tokens_per_block;
    table = KvTable{};
    table.hash = mix(salt, 0);
    reused = 0;
    // The last token of the prompt is always computed: its logits are wanted.
    while (layout_.reuse && reused + size < prompt.size()) {
        uint64_t const hash = hash_block(table.hash, &prompt[reused]);
        std::size_t const block = find(table.hash, &prompt[reused], hash);
        if (block == blocks_.size()) break;
        use(static_cast<uint32_t>(block));
        table.blocks.push_back(static_cast<uint32_t>(block));
        table.hash = hash;
        ++table.indexed;
        reused += size;
    }
    std::size_t const wanted = blocks_for(positions);
    if (wanted - table.blocks.size() > free_.size()) {
        release(table);
        return false;
    }
    stats_.reused += table.indexed;
    stats_.missed += (prompt.size() - 1) / size - table.indexed;
    stats_.alloc_total += wanted;
    stats_.alloc_new += wanted - table.blocks.size();
    while (table.blocks.size() < wanted) table.blocks.push_back(take());
    return true;
}

void KvCache::index(std::vector<int32_t> const& tokens, std::size_t computed, KvTable& table) {
    if (!layout_.reuse) return;
    std::size_t const size = layout_.tokens_per_block;
    for (; (table.indexed + 1) * size <= computed; ++table.indexed) {
        int32_t const* const own = &tokens[table.indexed * size];
        uint64_t const hash = hash_block(table.hash, own);
        uint32_t const number = table.blocks[table.indexed];
        // Another sequence may have been faster: its block stays.
        if (index_.emplace(hash, number).second) {
            Block& block = blocks_[number];
            block.indexed = true;
            block.before = table.hash;
            block.hash = hash;
            block.tokens.assign(own, own + size);
        }
        table.hash = hash;
    }
}

void KvCache::release(KvTable& table) {
    // The last blocks first: without those before them they cannot be found, so they should go first.
    for (auto number = table.blocks.rbegin(); number != table.blocks.rend(); ++number) {
        Block& block = blocks_[*number];
        if (--block.users > 0) continue;
        // What can be found is worth keeping for longer than what cannot.
        block.place = free_.insert(block.indexed ? free_.end() : free_.begin(), *number);
    }
    table = KvTable{};
}

float* KvCache::key(KvTable const& table, std::size_t layer, std::size_t position) {
    std::size_t const size = layout_.tokens_per_block;
    std::size_t const slot = position % size;
    return blocks_[table.blocks[position / size]].numbers.data() + (2 * layer * size + slot) * layout_.width;
}

float* KvCache::value(KvTable const& table, std::size_t layer, std::size_t position) {
    return key(table, layer, position) + layout_.tokens_per_block * layout_.width;
}

KvStats KvCache::stats() const {
    KvStats stats = stats_;
    stats.free_blocks = free_.size();
    return stats;
}

std::size_t KvCache::find(uint64_t before, int32_t const* tokens, uint64_t hash) const {
    auto const found = index_.find(hash);
    if (found == index_.end()) return blocks_.size();
    Block const& block = blocks_[found->second];
    bool const same = block.before == before && std::equal(block.tokens.begin(), block.tokens.end(), tokens);
    return same ? found->second : blocks_.size();
}

uint64_t KvCache::hash_block(uint64_t before, int32_t const* tokens) const {
    uint64_t hash = before;
    for (std::size_t i = 0; i < layout_.tokens_per_block; ++i) hash = mix(hash, static_cast<uint32_t>(tokens[i]));
    return hash;
}

void KvCache::use(uint32_t number) {
    Block& block = blocks_[number];
    if (block.users++ == 0) free_.erase(block.place);
}

uint32_t KvCache::take() {
    uint32_t const number = free_.front();
    Block& block = blocks_[number];
    block.numbers.resize(2 * layout_.layers * layout_.tokens_per_block * layout_.width);
    if (block.indexed) index_.erase(block.hash);
    block.indexed = false;
    use(number);
    return number;
}

}  // namespace rollforge::contract_double
