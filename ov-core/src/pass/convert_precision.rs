//! Computes in single precision what a model states in half, for devices without kernels for the narrow types.

use std::collections::HashMap;

use super::Pass;
use crate::{
    error::Result,
    model::{Model, NodeId, Value},
    op::{
        Attribute, AttributeVisitor, Op, OpResult,
        convert::Convert,
        core::{Constant, Parameter},
    },
    tensor::ElementType,
};

/// Lets every operator over `f16` and `bf16` compute in `f32`, after OpenVINO's pass of this name.
///
/// Constants are converted here; elsewhere conversions stand where a value enters or leaves: at parameters, results and
/// operators that have no `f32` form. What the model itself converts to a narrow type is still rounded. Bodies are
/// models of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertPrecision {
    /// Whether each result is rounded to the type that the model states, as the specification of its operator asks for.
    /// Else nothing is rounded between two operators: results are nearer to those of real numbers, and sooner there.
    pub round: bool,
}

impl Pass for ConvertPrecision {
    fn name(&self) -> &'static str {
        "convert precision"
    }

    fn run(&self, model: &mut Model) -> Result<usize> {
        let mut widening = Widening { model, round: self.round, wide: HashMap::new() };
        let mut changes = 0;
        for id in widening.model.topological_order()? {
            changes += usize::from(widening.visit(id)?);
        }
        if changes > 0 {
            model.remove_dead();
        }
        Ok(changes)
    }
}

const fn is_narrow(ty: ElementType) -> bool {
    matches!(ty, ElementType::F16 | ElementType::Bf16)
}

const fn widened(ty: ElementType) -> ElementType {
    if is_narrow(ty) { ElementType::F32 } else { ty }
}

struct Widening<'m> {
    model: &'m mut Model,
    round: bool,
    /// The `f32` form of narrow values.
    wide: HashMap<Value, Value>,
}

impl Widening<'_> {
    /// Replaces a node with its `f32` form, if it has one.
    fn visit(&mut self, id: NodeId) -> Result<bool> {
        let node = self.model.node(id);
        let narrow = |value: &Value| is_narrow(self.model.element_type(*value));
        let concerned = node.inputs().iter().any(narrow)
            || node.outputs().iter().any(|o| is_narrow(o.element_type));
        if let Some(convert) = node.op_as::<Convert>()
            && convert.destination_type == ElementType::F32
            && let Some(wide) = self.wide.get(&node.inputs()[0]).copied()
        {
            self.model.replace(id.into(), wide);
            return Ok(true);
        }
        if !concerned
            || node.op().is::<Parameter>()
            || node.op().is::<Constant>()
            || BY_TYPE.contains(&node.op().kind().name)
            || self.round && KEPT_WHEN_ROUNDING.contains(&node.op().kind().name)
        {
            return Ok(false);
        }
        let mut op = node.op().clone_box();
        if op.visit_attributes(&mut WidenTypes).is_err() {
            return Ok(false);
        }
        let (inputs, name) = (node.inputs().to_vec(), node.name().to_owned());
        let types: Vec<ElementType> = node.outputs().iter().map(|o| o.element_type).collect();
        let inputs =
            inputs.into_iter().map(|value| self.widen(value)).collect::<Result<Vec<_>>>()?;
        if !self.keeps_types(&*op, &inputs, &name, &types) {
            return Ok(false);
        }
        let wide = self.model.add_node(op, &inputs, name.clone())?;
        for (ty, output) in types.into_iter().zip(0..) {
            let (old, new) = (Value { node: id, output }, Value { node: wide, output });
            if is_narrow(ty) {
                let back =
                    self.model.add(Convert { destination_type: ty }, &[new], name.clone())?;
                self.model.replace(old, back);
                if !self.round {
                    self.wide.insert(back, new);
                }
            } else {
                self.model.replace(old, new);
            }
        }
        self.model.remove_unused(id);
        Ok(true)
    }

    /// Whether the operator makes of these inputs what it made of the narrow ones, in `f32`.
    fn keeps_types(
        &self,
        op: &dyn Op,
        inputs: &[Value],
        name: &str,
        types: &[ElementType],
    ) -> bool {
        self.model.infer_types(op, inputs, name).is_ok_and(|now| {
            now.len() == types.len()
                && now.iter().zip(types).all(|(now, before)| now.element_type == widened(*before))
        })
    }

    fn widen(&mut self, value: Value) -> Result<Value> {
        if !is_narrow(self.model.element_type(value)) {
            return Ok(value);
        }
        if let Some(wide) = self.wide.get(&value) {
            return Ok(*wide);
        }
        let name = self.model.node(value.node).name().to_owned();
        let wide = match self.model.constant(value) {
            Some(tensor) => {
                let tensor = tensor.cast(ElementType::F32)?;
                self.model.add_constant(tensor, name)
            }
            None => {
                self.model.add(Convert { destination_type: ElementType::F32 }, &[value], name)?
            }
        };
        self.wide.insert(value, wide);
        Ok(wide)
    }
}

/// Sets attributes that name a narrow type to `f32`.
struct WidenTypes;

impl AttributeVisitor for WidenTypes {
    fn visit(&mut self, _: &'static str, attribute: Attribute<'_>) -> OpResult<()> {
        match attribute {
            Attribute::ElementType(ty) => *ty = widened(*ty),
            Attribute::Tensor(t) if is_narrow(t.element_type()) => *t = t.cast(ElementType::F32)?,
            _ => {}
        }
        Ok(())
    }
}

/// Operators that are about types, whose rounding or bits are what is asked for.
const BY_TYPE: &[&str] = &["Convert", "ConvertLike", "ConvertNarrow", "BitCast"];

/// Operators whose specification rounds within them, and those that round nothing because they only move elements.
const KEPT_WHEN_ROUNDING: &[&str] = &[
    "Attention",
    "LinearAttention",
    "SoftMax",
    "LogSoftmax",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Concat",
    "Split",
    "VariadicSplit",
    "Slice",
    "StridedSlice",
    "Broadcast",
    "Tile",
    "Gather",
    "GatherElements",
    "GatherND",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        op::{activation::Relu, arithmetic::Add, convert::BitCast, generate::Range},
        pass::testing::{assert_same_outputs, random},
        tensor::Tensor,
    };

    fn kinds(model: &Model, ty: ElementType) -> Vec<&'static str> {
        let mut kinds: Vec<_> = model
            .nodes()
            .filter(|(_, n)| n.element_type(0) == ty)
            .map(|(_, n)| n.op().kind().name)
            .collect();
        kinds.sort_unstable();
        kinds
    }

    #[test]
    fn values_are_narrow_only_at_the_borders() {
        for narrow in [ElementType::F16, ElementType::Bf16] {
            let mut m = Model::new("m");
            let x = m.add_parameter("x", narrow, [3]).expect("valid");
            let w = m.add_constant(random([3], 1).cast(narrow).expect("native"), "w");
            let sum = m.add(Add::default(), &[x, w], "sum").expect("valid");
            let y = m.add(Relu {}, &[sum], "relu").expect("valid");
            m.add_output("y", y);
            let mut after = m.clone();
            assert_eq!(ConvertPrecision::default().run(&mut after).expect("valid"), 2);
            after.verify().expect("consistent");
            assert_eq!(kinds(&after, narrow), ["Convert", "Parameter"]);
            assert_eq!(kinds(&after, ElementType::F32), ["Add", "Constant", "Convert", "ReLU"]);
            assert_eq!(ConvertPrecision::default().run(&mut after).expect("valid"), 0);
            let x = Tensor::from_f64s::<f32>([3], &[0.5, -4.0, 1.0])
                .expect("fits")
                .cast(narrow)
                .expect("native");
            let got =
                crate::reference::evaluate(&after, std::slice::from_ref(&x)).expect("evaluates");
            let expected = crate::reference::evaluate(&m, &[x]).expect("evaluates");
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn what_the_model_rounds_stays_rounded() {
        let mut m = Model::new("m");
        let x = m.add_parameter("x", ElementType::F32, [4]).expect("valid");
        let narrow =
            m.add(Convert { destination_type: ElementType::F16 }, &[x], "round").expect("valid");
        let y = m.add(Relu {}, &[narrow], "relu").expect("valid");
        let y = m.add(Convert { destination_type: ElementType::F32 }, &[y], "wide").expect("valid");
        m.add_output("y", y);
        let mut after = m.clone();
        ConvertPrecision::default().run(&mut after).expect("valid");
        crate::pass::simplify(&mut after).expect("valid");
        assert_same_outputs(&m, &after);
        assert_eq!(kinds(&after, ElementType::F16), ["Convert"]);
    }

    #[test]
    fn every_result_is_rounded_on_demand() {
        let mut m = Model::new("m");
        let x = m.add_parameter("x", ElementType::Bf16, [40]).expect("valid");
        let w = m.add_constant(random([40], 1).cast(ElementType::Bf16).expect("native"), "w");
        let sum = m.add(Add::default(), &[x, w], "sum").expect("valid");
        let y = m.add(Add::default(), &[sum, w], "twice").expect("valid");
        m.add_output("y", y);
        let x = random([40], 2).cast(ElementType::Bf16).expect("native");
        let expected = crate::reference::evaluate(&m, std::slice::from_ref(&x)).expect("evaluates");
        for round in [false, true] {
            let mut after = m.clone();
            ConvertPrecision { round }.run(&mut after).expect("valid");
            crate::pass::simplify(&mut after).expect("valid");
            let got =
                crate::reference::evaluate(&after, std::slice::from_ref(&x)).expect("evaluates");
            assert_eq!(got == expected, round, "{after}");
        }
    }

    #[test]
    fn bits_are_read_of_the_narrow_form_and_types_in_attributes_follow() {
        let mut m = Model::new("m");
        let stop =
            m.add_constant(Tensor::scalar(4f32).cast(ElementType::F16).expect("native"), "stop");
        let start = m.add_parameter("start", ElementType::F16, []).expect("valid");
        let step =
            m.add_constant(Tensor::scalar(1f32).cast(ElementType::F16).expect("native"), "step");
        let range = Range { output_type: ElementType::F16 };
        let y = m.add(range, &[start, stop, step], "range").expect("valid");
        let bits =
            m.add(BitCast { destination_type: ElementType::U16 }, &[y], "bits").expect("valid");
        m.add_output("y", y);
        m.add_output("bits", bits);
        let mut after = m.clone();
        assert_eq!(ConvertPrecision::default().run(&mut after).expect("valid"), 1);
        let start = Tensor::scalar(0f32).cast(ElementType::F16).expect("native");
        let got =
            crate::reference::evaluate(&after, std::slice::from_ref(&start)).expect("evaluates");
        assert_eq!(got, crate::reference::evaluate(&m, &[start]).expect("evaluates"));
        assert_eq!(got[1].element_type(), ElementType::U16);
    }
}
