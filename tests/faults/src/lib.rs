//! The faults: every row of the table of failure modes as a scenario on real processes, judged by the checker.
//!
//! Never depends on a fake of anything of ours.
