//! From a model to the bytes of a blob, and from those bytes to something that runs.

use ov_core::{
    Model,
    error::Result,
    pass::{self, ConvertPrecision, Pass, chain, fuse, integer, layout, recurrent},
};

use crate::{
    lower::{self, Options},
    nodes::is_fusible,
    program::{self, Program, Weights},
};

/// The model after every pass of this device, ready to be lowered.
///
/// # Errors
/// When a pass finds the model to be invalid.
pub(crate) fn prepare(model: &Model, options: Options) -> Result<Model> {
    let mut model = model.clone();
    ConvertPrecision { round: options.round }.run(&mut model)?;
    pass::simplify(&mut model)?;
    let integers = integer::products(&mut model)?;
    let split = recurrent::split(&mut model)? > 0;
    if integers || split {
        pass::simplify(&mut model)?;
    }
    let mut model = layout::channels_last(&model)?;
    fuse::fuse(&mut model)?;
    integer::fuse(&mut model)?;
    lower::dynamic_quantize::share(&mut model)?;
    chain::fuse_element_wise(&mut model, &is_fusible)?;
    Ok(model)
}

/// The parts of a blob that this device writes.
#[derive(Debug)]
pub struct Compiled {
    /// The plan section.
    pub plan: Vec<u8>,
    /// The weights section, not yet written.
    pub weights: Weights,
}

/// Compiles a model.
///
/// # Errors
/// When the model is not valid or no kernel takes a node.
pub fn compile(model: &Model, options: &Options) -> Result<Compiled> {
    let mut weights = Weights::default();
    let program: Program = lower::lower(&prepare(model, *options)?, options, &mut weights)?;
    Ok(Compiled { plan: program::encode(&program)?, weights })
}
