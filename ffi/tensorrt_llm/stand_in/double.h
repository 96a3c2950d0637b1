// The way from the stand-in to the contract double: its failures become exceptions, as TensorRT-LLM's are.
#pragma once

#include "contract.h"

namespace rollforge::stand_in {

/// The double's table.
inline rf_api const& contract_double()
{
    return *rf_double_api();
}

/// Throws what TensorRT-LLM would throw for a call of the double that failed.
void check(rf_status status);

/// The bytes by which a live engine of the double goes through TensorRT's `deserializeCudaEngine`.
struct LiveEngineBlob {
    char magic[24];
    rf_engine* engine;
};
constexpr char kLiveEngine[24] = "stand-in: live engine";

}
