//! The text of an element-wise kernel out of its formula.

use std::fmt::Write as _;

use super::{super::Source, formula::Formula};

/// Functions that formulas call, and the walk over operands that broadcast.
const PRELUDE: &str = concat!(
    include_str!("../cuda/element.cuh"),
    include_str!("../cuda/walk.cuh"),
    include_str!("../cuda/formula.cuh"),
    include_str!("../cuda/small_float.cuh"),
);

/// Bytes of the widest access.
const ACCESS: usize = 16;

/// Elements that a thread of the vector kernel computes: 16 bytes of the widest operand, at most 8.
pub(super) fn vector(formula: &Formula) -> usize {
    let types = formula.inputs.iter().chain([&formula.output]);
    let widest = types.map(|t| bytes_of(t)).max().unwrap_or(1);
    (ACCESS / widest).clamp(1, 8)
}

fn bytes_of(storage: &str) -> usize {
    match storage {
        "signed char" | "unsigned char" => 1,
        "short" | "unsigned short" | "ov_f16" | "ov_bf16" => 2,
        "int" | "unsigned int" | "float" => 4,
        "ov_16_bytes" => 16,
        _ => 8,
    }
}

/// The module of a formula, with the functions `eltwise_vector` and `eltwise_single`.
pub(super) fn source(formula: &Formula) -> Source {
    let mut body = PRELUDE.to_owned();
    let inputs = || formula.inputs.iter().enumerate();
    let constants = || formula.constants.iter().enumerate();
    let join = |parts: Vec<String>| parts.join(", ");
    let values = inputs().map(|(i, t)| format!("ov_compute<{t}> x{i}"));
    let numbers: Vec<String> =
        constants().map(|(i, c)| format!("{} c{i}", c.type_name())).collect();
    let formals = join(values.chain(numbers.iter().cloned()).collect());
    let pointers = inputs().map(|(i, t)| format!("const {t}* p{i}"));
    let output = formula.output;
    let params = join(
        pointers
            .chain([format!("{output}* out"), format!("ov_walk<{}> w", formula.inputs.len())])
            .chain(numbers)
            .collect(),
    );
    let call = |value: &dyn Fn(usize) -> String| {
        let values = (0..formula.inputs.len()).map(value);
        join(values.chain(constants().map(|(i, _)| format!("c{i}"))).collect())
    };
    let single = call(&|i| format!("ov_load(p{i}[at[{i}]])"));
    let lane = call(&|i| format!("ov_load(v{i}.lane[k])"));
    let tail = call(&|i| format!("ov_load(p{i}[at[{i}] + (w.step({i}) ? k : 0)])"));
    let mut loads = String::new();
    for (i, ty) in inputs() {
        let _ = writeln!(
            loads,
            "    const auto v{i} = ov_load_lanes<{ty}, V>(p{i} + at[{i}], w.step({i}));"
        );
    }
    let _ = write!(
        body,
        "
OV_DEVICE ov_compute<{output}> formula({formals}) {{
  {statements}return {code};
}}

OV_KERNEL eltwise_vector({params}) {{
  constexpr int V = {vector};
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned first = ov_global_thread() * V;
  if (first < w.count) {{
    int at[{operands}];
    w.locate(first, at);
    if (first + V <= w.count) {{
{loads}      ov_lanes<{output}, V> result;
      for (int k = 0; k < V; ++k) ov_store(&result.lane[k], formula({lane}));
      ov_store_lanes(out + first, result);
    }} else {{
      for (unsigned k = 0; first + k < w.count; ++k) ov_store(out + first + k, formula({tail}));
    }}
  }}
}}

OV_KERNEL eltwise_single({params}) {{
  ov_grid_wait();
  ov_grid_launch_dependents();
  const unsigned first = ov_global_thread();
  if (first < w.count) {{
    int at[{operands}];
    w.locate(first, at);
    ov_store(out + first, formula({single}));
  }}
}}
",
        statements = formula.statements,
        code = formula.code,
        vector = vector(formula),
        operands = formula.inputs.len(),
    );
    Source { body: body.into(), defines: Vec::new() }
}
