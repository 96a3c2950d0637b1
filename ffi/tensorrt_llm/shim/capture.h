// Gets hold of the TensorRT engine that TensorRT-LLM's Executor loads for itself.
//
// The Executor gives out no handle to its engine, and a refitter needs one. So `capture.cc` defines
// `createInferRuntime_INTERNAL`, the one C function through which every client of TensorRT's headers reaches libnvinfer.
// A definition in the executable, or in a library that comes before libnvinfer, wins; the real one is found with
// dlsym(RTLD_NEXT). While a `Capture` is open on the calling thread, the runtimes it hands out note the engines they load.
//
// It does not work where libtensorrt_llm was opened with RTLD_DEEPBIND, or where libnvinfer comes first in the order of
// libraries (`capture_is_linked` tells).
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#if NV_TENSORRT_MAJOR != 10
#error "Rollforge needs TensorRT 10 (10.0 to 10.16): the capture of engines depends on how its classes are laid out"
#elif NV_TENSORRT_MINOR > 16
#error "Rollforge knows TensorRT up to 10.16: the capture of engines depends on how its classes are laid out"
#endif

namespace rollforge::shim {

/// Notes the engines that TensorRT loads on this thread, as long as it lives. The innermost one notes.
class Capture {
public:
    Capture();
    ~Capture();
    Capture(Capture const&) = delete;
    Capture& operator=(Capture const&) = delete;

    /// What was loaded; each engine belongs to whoever loaded it.
    std::vector<nvinfer1::ICudaEngine*> const& engines() const { return engines_; }

    /// The innermost capture of this thread; NULL when there is none.
    static Capture* current();

    void note(nvinfer1::ICudaEngine* engine) { engines_.push_back(engine); }

private:
    std::vector<nvinfer1::ICudaEngine*> engines_;
    Capture* outer_;
};

/// Says whether libraries of this process reach TensorRT through us.
bool capture_is_linked();

}
