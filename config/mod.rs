//! TOML into typed, validated structs.
