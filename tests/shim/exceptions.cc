// What each kind of exception becomes on the other side of the border.

#include "shim/guard.h"

#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>

using namespace rollforge::shim;

template <typename Thrown>
static void print(Thrown const& thrown)
{
    rf_status const status = guard([&] { throw thrown; });
    std::printf("%d %s\n", status, last_error());
}

int main()
{
    print(Failure(RF_VERSION, "a rule of ours"));
    print(std::bad_alloc());
    print(std::runtime_error("[TensorRT-LLM][ERROR] CUDA runtime error in cudaMalloc(): out of memory"));
    print(std::invalid_argument("top_p"));
    print(std::runtime_error("the first line\n1  0x7f00 a stack trace"));
    print(7);
    guard([] { throw std::runtime_error(std::string(5000, 'x')); });
    std::printf("%zu characters\n", std::strlen(last_error()));
    rf_status const status = guard([] {});
    std::printf("%d %s|\n", status, last_error());
}
