// Why a call of the double failed.

#pragma once

#include "../contract.h"

#include <stdexcept>
#include <string>

namespace rollforge::contract_double {

/// A failure with the status that the contract gives it. Anything else that is thrown is RF_INTERNAL.
class Failure : public std::runtime_error {
public:
    Failure(rf_status status, std::string const& sentence)
        : std::runtime_error(sentence), status_(status) {}

    rf_status status() const { return status_; }

private:
    rf_status status_;
};

/// Fails with RF_INVALID_ARGUMENT unless the rule holds.
inline void require(bool rule, std::string const& sentence) {
    if (!rule) throw Failure(RF_INVALID_ARGUMENT, sentence);
}

}  // namespace rollforge::contract_double
