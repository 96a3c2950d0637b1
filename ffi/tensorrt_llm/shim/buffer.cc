// Bytes on their way out.

#include "shim/objects.h"

namespace rollforge::shim {
namespace {

std::uint8_t const* data(rf_buffer const* buffer)
{
    if (buffer == nullptr) {
        return nullptr;
    }
    Buffer const& source = *behind(buffer);
    return static_cast<std::uint8_t const*>(source.plan ? source.plan->data() : source.text.data());
}

std::uint64_t length(rf_buffer const* buffer)
{
    if (buffer == nullptr) {
        return 0;
    }
    Buffer const& source = *behind(buffer);
    return source.plan ? source.plan->size() : source.text.size();
}

void free_buffer(rf_buffer* buffer)
{
    delete behind(buffer);
}

}

void add_buffer(rf_api& api)
{
    api.buffer_data = data;
    api.buffer_len = length;
    api.buffer_free = free_buffer;
}

}
