//! The report and the live page of a real run.
