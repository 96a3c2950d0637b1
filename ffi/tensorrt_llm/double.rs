//! What tests of the contract double need beside the contract (`double/testing.h`).

use super::bridge;

/// Ends every scripted hang that is under way; the calls that hung fail.
pub fn release_hangs() {
    bridge::rf_double_release_hangs();
}
