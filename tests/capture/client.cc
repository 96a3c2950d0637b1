// A library that loads engines for itself and hands out nothing, as libtensorrt_llm does. Knows nothing of the capture.

#include <NvInferRuntime.h>

#include <memory>
#include <thread>

using namespace nvinfer1;

namespace {

class Logger final : public ILogger {
public:
    void log(Severity, AsciiChar const*) noexcept override {}
};

class Reader final : public IStreamReader {
public:
    std::int64_t read(void*, std::int64_t) override { return 0; }
};

class ReaderV2 final : public IStreamReaderV2 {
public:
    std::int64_t read(void*, std::int64_t, cudaStream_t) noexcept override { return 0; }
    bool seek(std::int64_t, SeekPosition) noexcept override { return true; }
};

}

extern "C" void client_load()
{
    Logger logger;
    std::unique_ptr<IRuntime> const runtime(createInferRuntime(logger));
    runtime->deserializeCudaEngine("plan", 0x10);
    Reader reader;
    runtime->deserializeCudaEngine(reader);
    ReaderV2 reader_v2;
    runtime->deserializeCudaEngine(reader_v2);
}

extern "C" void client_load_on_a_thread()
{
    std::thread(client_load).join();
}
