#include "shim/guard.h"

#include <cstring>
#include <new>

namespace rollforge::shim {
namespace {

/// Of fixed size, so that even a failure to allocate can be told.
thread_local char error_line[1024] = "";

/// Keeps the first line: TensorRT-LLM's messages go on with a stack trace.
rf_status record(rf_status status, char const* message)
{
    std::size_t length = 0;
    while (message[length] != '\0' && message[length] != '\n' && length + 1 < sizeof(error_line)) {
        ++length;
    }
    std::memcpy(error_line, message, length);
    error_line[length] = '\0';
    return status;
}

/// CUDA, TensorRT and TensorRT-LLM have no exception type of their own for this.
bool says_out_of_memory(char const* message)
{
    for (char const* words : {"out of memory", "Out of memory", "OutOfMemory", "cudaErrorMemoryAllocation"}) {
        if (std::strstr(message, words) != nullptr) {
            return true;
        }
    }
    return false;
}

}

char const* last_error()
{
    return error_line;
}

void clear_error()
{
    error_line[0] = '\0';
}

rf_status record_exception()
{
    try {
        throw;
    } catch (Failure const& failure) {
        return record(failure.status(), failure.what());
    } catch (std::bad_alloc const&) {
        return record(RF_OUT_OF_MEMORY, "out of host memory");
    } catch (std::invalid_argument const& error) {
        return record(RF_INVALID_ARGUMENT, error.what());
    } catch (std::exception const& error) {
        return record(says_out_of_memory(error.what()) ? RF_OUT_OF_MEMORY : RF_INTERNAL, error.what());
    } catch (...) {
        return record(RF_INTERNAL, "something was thrown that is no std::exception");
    }
}

}
