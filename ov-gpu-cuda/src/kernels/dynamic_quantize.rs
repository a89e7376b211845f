//! Quantization by the range of the data, whole or in its two steps.

use std::borrow::Cow;

use ov_core::op::{
    fused::quantize::{BlockRanges, QuantizeByRanges},
    quantize::DynamicQuantizeLinear,
};

use super::{
    Arg, Binding, Bound, Choice, Kernel, Launch, Reject, Selecting, Source, Step, host::choice,
    walk::count,
};

/// The family.
pub(super) const DYNAMIC_QUANTIZE: Kernel = Kernel { name: "dynamic_quantize", select, bind };

const TEXT: &str = concat!(
    include_str!("cuda/element.cuh"),
    include_str!("cuda/group.cuh"),
    include_str!("cuda/dynamic_quantize.cu"),
);

const BLOCK: u32 = 256;

/// Elements for which a block pays.
const SHARE: usize = 4096;

fn select(node: &Selecting<'_>) -> Option<Result<Choice, Reject>> {
    let op = node.op;
    let own =
        op.is::<DynamicQuantizeLinear>() || op.is::<BlockRanges>() || op.is::<QuantizeByRanges>();
    own.then(|| choice(node, &[]))
}

fn launch(function: &'static str, blocks: u32, args: Vec<Arg>) -> Launch {
    Launch {
        source: Source { body: Cow::Borrowed(TEXT), defines: Vec::new() },
        function: function.into(),
        grid: [blocks, 1, 1],
        block: [BLOCK, 1, 1],
        shared: 0,
        args,
    }
}

/// The ranges of `blocks` blocks of `len` elements.
fn ranges(len: usize, blocks: usize, to: Arg) -> Result<Launch, Reject> {
    let args = vec![
        Arg::Input(0),
        to,
        Arg::I32(count(len)? as i32),
        Arg::I32(count(len.div_ceil(blocks.max(1)))? as i32),
    ];
    Ok(launch("block_ranges", count(blocks)?, args))
}

fn bind(node: &Binding<'_>) -> Result<Bound, Reject> {
    let len = node.inputs[0].shape.elements();
    let most = node.gpu.multiprocessors as usize;
    if node.op.is::<BlockRanges>() {
        let launches = vec![ranges(len, node.outputs[0].shape[0], Arg::Output(0))?];
        return Ok(Bound::Step(Step { launches, ..Step::default() }));
    }
    let whole = node.op.is::<DynamicQuantizeLinear>();
    let blocks = if whole {
        len.div_ceil(SHARE).clamp(1, most)
    } else {
        node.inputs[1].shape.elements() / 2
    };
    let from = if whole { Arg::Scratch(0) } else { Arg::Input(1) };
    let mut step = Step::default();
    if whole {
        step.scratch = blocks * 8;
        step.launches.push(ranges(len, blocks, Arg::Scratch(0))?);
    }
    let args = vec![
        Arg::Input(0),
        from,
        Arg::Output(0),
        Arg::Output(1),
        Arg::Output(2),
        Arg::I32(count(len)? as i32),
        Arg::I32(count(blocks)? as i32),
    ];
    let grid = count(len.div_ceil(BLOCK as usize * 4))?.clamp(1, 4 * most as u32);
    step.launches.push(launch("quantize_by_ranges", grid, args));
    Ok(Bound::Step(step))
}
