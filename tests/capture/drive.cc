// Lets the client load engines inside and outside of captures, and prints what was captured.

#include "shim/capture.h"

#include <cstdio>

using rollforge::shim::Capture;

extern "C" void client_load();
extern "C" void client_load_on_a_thread();

namespace {

void print(char const* what, Capture const& capture)
{
    std::printf("%s:", what);
    for (auto* const engine : capture.engines()) {
        std::printf(" %#zx", reinterpret_cast<std::size_t>(engine));
    }
    std::puts("");
}

}

extern "C" void drive()
{
    std::printf("linked: %s\n", rollforge::shim::capture_is_linked() ? "yes" : "no");
    client_load();
    {
        Capture const outer;
        {
            Capture const inner;
            client_load();
            print("inner", inner);
        }
        client_load_on_a_thread();
        print("outer, after a load elsewhere", outer);
        client_load();
        print("outer", outer);
    }
    client_load();
    std::fflush(stdout);
}
