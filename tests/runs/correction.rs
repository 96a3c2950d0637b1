//! What an engine that does not compute what the trainer computes does to a run, and what is done about it.
