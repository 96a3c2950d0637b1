// What TensorRT says of its failures: its functions only return false or null.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace rollforge::shim {

/// The logger that is handed to TensorRT; lives as long as the process. TensorRT uses one logger for all, the first it saw: where
/// that was TensorRT-LLM's, errors are in TensorRT-LLM's log and not here.
nvinfer1::ILogger& logger();

/// Forgets what was said.
void clear_log();

/// Returns the first error said since `clear_log`, or a hint where to look.
std::string logged_error();

}
