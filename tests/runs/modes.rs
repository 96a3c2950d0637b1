//! Synchronous, one step off, asynchronous: what overlaps, and that runs repeat.
