//! What a run takes in memory, foretold.
