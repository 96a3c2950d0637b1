//! The `rollforge` program.

fn main() -> std::process::ExitCode {
    rollforge::cli::main()
}
