//! The part of the trainer that computes with libtorch: the only files that name `tch`.
