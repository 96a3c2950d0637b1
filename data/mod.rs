//! JSON Lines and Parquet rows into prompts, completions and preference pairs.
