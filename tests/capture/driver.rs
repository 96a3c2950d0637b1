//! The driver in a Rust executable: the capture in a static archive, as a build script makes it.

unsafe extern "C" {
    fn drive();
}

fn main() {
    // SAFETY: `drive` takes nothing and returns nothing.
    unsafe { drive() };
}
