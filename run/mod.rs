//! The loops: the only place that sees engine and trainer together.
