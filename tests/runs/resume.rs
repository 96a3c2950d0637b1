//! A run that was stopped, killed or ran out of disk ends as one that was not.
