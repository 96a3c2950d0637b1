#include "shim/logger.h"

#include <cstdio>
#include <mutex>

namespace rollforge::shim {
namespace {

/// Keeps the first error, in a line of fixed size: TensorRT forbids exceptions in `log`.
class FirstError final : public nvinfer1::ILogger {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override
    {
        if (severity > Severity::kERROR) {
            return;
        }
        std::lock_guard<std::mutex> const lock(mutex_);
        if (line_[0] == '\0') {
            std::snprintf(line_, sizeof(line_), "%s", message);
        }
    }
    void clear()
    {
        std::lock_guard<std::mutex> const lock(mutex_);
        line_[0] = '\0';
    }
    std::string line()
    {
        std::lock_guard<std::mutex> const lock(mutex_);
        return line_;
    }

private:
    std::mutex mutex_;
    char line_[512] = "";
};

/// Never destroyed: TensorRT keeps the address until the process ends.
FirstError& first_error()
{
    static auto* const kept = new FirstError;
    return *kept;
}

}

nvinfer1::ILogger& logger()
{
    return first_error();
}

void clear_log()
{
    first_error().clear();
}

std::string logged_error()
{
    std::string const line = first_error().line();
    return line.empty() ? "TensorRT's own log says why" : line;
}

}
