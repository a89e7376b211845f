//! `cargo xtask bench`: a release build of ov-bench, measured at once.

use anyhow::Result;

use crate::workspace::{Workspace, hand_over, take_option};

pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.to_vec();
    let features = take_option(&mut arguments, "--features")?;
    let program = workspace.release_ov_bench(features.as_deref())?;
    let arguments = std::iter::once("bench".to_owned()).chain(arguments);
    hand_over(&program, arguments.map(Into::into))
}
