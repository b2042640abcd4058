//! A node that cheats, for the tests of what a network does about it. An example, so that it is built with the tests
//! and installed by nothing.

fn main() -> std::process::ExitCode {
    commonhold_cheats::main()
}
