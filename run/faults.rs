//! Faults on demand, for tests of what a run does about them. A build without the feature `fault-injection` has nothing of
//! this: every call below is empty, and the configuration does not know the key `faults`.
//!
//! | fault | what goes wrong in iteration N |
//! |-------|--------------------------------|
//! | `engine:stall@N` | the engine's thread stands still in a step |
//! | `engine:panic@N` | it panics |
//! | `reward:hang@N`, `reward:error@N`, `reward:panic@N` | the reward source does |
//! | `reward:nan@N` | the last reward is no number |
//! | `queue:full@N` | the trainer takes nothing out of the queue any more |
//! | `queue:twice@N` | an answer comes in the place of another |
//! | `trainer:error@N`, `trainer:hang@N`, `trainer:panic@N` | the trainer does, between scores and update |
//! | `gradient:nan@N` | every mini-batch has an advantage and a return that are no numbers |
//! | `checkpoint:error@N` | a file of the checkpoint cannot be written |

#[cfg(feature = "fault-injection")]
mod injected;
#[cfg(not(feature = "fault-injection"))]
mod none;

#[cfg(feature = "fault-injection")]
pub(super) use injected::Faults;
#[cfg(not(feature = "fault-injection"))]
pub(super) use none::Faults;
