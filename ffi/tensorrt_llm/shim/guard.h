// Keeps C++ exceptions on this side of the border: what a body throws becomes a status and one line of text.
#pragma once

#include "contract.h"

#include <stdexcept>
#include <string>

namespace rollforge::shim {

/// A failure whose status we choose.
class Failure : public std::runtime_error {
public:
    Failure(rf_status status, std::string const& sentence) : std::runtime_error(sentence), status_(status) {}
    rf_status status() const { return status_; }

private:
    rf_status status_;
};

/// The calling thread's latest failure; "" if its latest call went well.
char const* last_error();

/// Forgets the calling thread's failure.
void clear_error();

/// Remembers the exception that is being handled and returns its status. Allocates nothing, throws nothing.
rf_status record_exception();

/// Runs the body of a call. The body returns nothing and throws when it fails.
template <typename Body>
rf_status guard(Body&& body)
{
    clear_error();
    try {
        body();
        return RF_OK;
    } catch (...) {
        return record_exception();
    }
}

/// Refuses a null argument.
template <typename T>
T& require(T* argument, char const* name)
{
    if (argument == nullptr) {
        throw Failure(RF_INVALID_ARGUMENT, std::string(name) + " must not be NULL");
    }
    return *argument;
}

}
