//! Stalls, panics and rewards that are none: each ends in a named error.
