//! Operators: OpenVINO's names and semantics, each with its attributes, shape rule and reference in one place.

mod attribute;
mod broadcast;
mod infer;
pub mod movement;
pub mod window;

use std::{any::Any, fmt};

pub use attribute::{
    Attribute, AttributeVisitor, Choice, TextReader, TextWriter, parse_partial_shape,
};
pub use broadcast::*;
pub use infer::*;

use crate::tensor::{Dimension, ElementType, PartialShape, Tensor, TensorError};

/// What is wrong with an operator's inputs or attributes; the graph adds which node it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// An input does not suit.
    #[error("input {index} has {got}, expected {expected}")]
    Input {
        /// Index of the input.
        index: usize,
        /// What it has.
        got: String,
        /// What it should have.
        expected: String,
    },
    /// The number of inputs is wrong.
    #[error("has {got} inputs, expected {expected}")]
    InputCount {
        /// How many there are.
        got: usize,
        /// How many there should be.
        expected: String,
    },
    /// An attribute does not suit.
    #[error("attribute {name} is {got:?}, expected {expected}")]
    Attribute {
        /// The attribute.
        name: &'static str,
        /// Its value.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// The combination is valid, but not built.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
    /// A tensor access failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// The result of an operator's rules.
pub type OpResult<T> = Result<T, OpError>;

/// Returns [`OpError::Invalid`] with a formatted text unless the condition holds.
#[macro_export]
macro_rules! op_ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::op::OpError::Invalid(format!($($text)+)));
        }
    };
}

/// Name and version of an operator: OpenVINO's type name and the opset that introduced this version.
///
/// Operators that OpenVINO does not have carry opset 0: internal fused ones, and ONNX operators that no composition
/// of OpenVINO's can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpKind {
    /// Type name, for example `Convolution`.
    pub name: &'static str,
    /// Opset number, 0 for ov's own.
    pub opset: u32,
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// What is known about one input while types are inferred.
#[derive(Clone, Copy, Debug)]
pub struct InputInfo<'a> {
    /// Element type, `Dynamic` when unknown.
    pub element_type: ElementType,
    /// Shape as far as known.
    pub shape: &'a PartialShape,
    /// The value, when it is a constant or was computed from shapes.
    pub value: Option<&'a Tensor>,
    /// The value of a small integer tensor (rank 0 or 1) as far as known, from shape arithmetic.
    pub dims: Option<&'a [Dimension]>,
}

/// Type of one output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputType {
    /// Element type.
    pub element_type: ElementType,
    /// Shape as far as known.
    pub shape: PartialShape,
    /// The value of a small integer tensor (rank 0 or 1) as far as known. See [`InputInfo::dims`].
    pub dims: Option<Vec<Dimension>>,
}

impl OutputType {
    /// A type without a known value.
    #[must_use]
    pub fn new(element_type: ElementType, shape: impl Into<PartialShape>) -> Self {
        Self { element_type, shape: shape.into(), dims: None }
    }

    /// The same with a partly known value.
    #[must_use]
    pub fn with_dims(mut self, dims: Option<Vec<Dimension>>) -> Self {
        self.dims = dims;
        self
    }
}

/// The inputs of an operator while types are inferred.
#[derive(Clone, Copy, Debug)]
pub struct InferContext<'a> {
    /// One entry per input.
    pub inputs: &'a [InputInfo<'a>],
}

/// The rules of an operator: what it makes of its inputs.
pub trait OpRules {
    /// Types of the outputs. Called again with concrete shapes when a program is bound, so with static input shapes
    /// (and values where the shape depends on them) the result must be static whenever the operator allows it.
    ///
    /// # Errors
    /// When inputs or attributes are not valid.
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>>;

    /// Reference evaluation: exact semantics, clarity before speed, sums in `f64` for `f32` and narrower.
    /// Inputs may be strided; outputs are contiguous.
    ///
    /// # Errors
    /// When the values are not valid.
    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>>;
}

/// What [`define_op!`](crate::define_op) generates for an operator.
pub trait OpAttributes {
    /// Name and version.
    const KIND: OpKind;

    /// Lends every attribute to the visitor, in declaration order.
    ///
    /// # Errors
    /// What the visitor returns.
    fn visit(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()>;
}

/// An operator with its attributes. Implemented by implementing [`OpRules`] for a type made with
/// [`define_op!`](crate::define_op).
pub trait Op: Any + fmt::Debug + Send + Sync {
    /// Name and version.
    fn kind(&self) -> OpKind;

    /// Lends every attribute to the visitor, in declaration order.
    ///
    /// # Errors
    /// What the visitor returns.
    fn visit_attributes(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()>;

    /// See [`OpRules::infer`].
    ///
    /// # Errors
    /// When inputs or attributes are not valid.
    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>>;

    /// See [`OpRules::evaluate`].
    ///
    /// # Errors
    /// When the values are not valid.
    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>>;

    /// A copy.
    fn clone_box(&self) -> Box<dyn Op>;
}

impl<T> Op for T
where
    T: OpAttributes + OpRules + Any + Clone + fmt::Debug + Send + Sync,
{
    fn kind(&self) -> OpKind {
        T::KIND
    }

    fn visit_attributes(&mut self, visitor: &mut dyn AttributeVisitor) -> OpResult<()> {
        OpAttributes::visit(self, visitor)
    }

    fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
        OpRules::infer(self, cx)
    }

    fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
        OpRules::evaluate(self, inputs)
    }

    fn clone_box(&self) -> Box<dyn Op> {
        Box::new(self.clone())
    }
}

impl dyn Op {
    /// The operator as its concrete type.
    #[must_use]
    pub fn downcast<T: Op>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }

    /// Whether the operator is of type `T`.
    #[must_use]
    pub fn is<T: Op>(&self) -> bool {
        (self as &dyn Any).is::<T>()
    }

    /// Attributes as `name=value, …`.
    #[must_use]
    pub fn attributes_text(&self) -> String {
        let mut writer = TextWriter::default();
        match self.clone_box().visit_attributes(&mut writer) {
            Ok(()) => writer.0,
            Err(e) => format!("<{e}>"),
        }
    }
}

impl Clone for Box<dyn Op> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

/// Declares an operator's struct with its attributes and their defaults.
///
/// ```
/// use ov_core::{define_op, op::{InferContext, OpResult, OpRules, OutputType}, Tensor};
///
/// define_op! {
///     /// `y = x < 0 ? alpha (exp(x) - 1) : x`. <https://docs.openvino.ai/…/Elu_1.html>
///     pub struct MyElu("Elu", 1) {
///         /// Scale of the negative part.
///         alpha: f64 = 1.0,
///     }
/// }
///
/// impl OpRules for MyElu {
///     fn infer(&self, cx: &InferContext<'_>) -> OpResult<Vec<OutputType>> {
///         cx.expect_inputs(1..=1)?;
///         Ok(vec![cx.same_as(0)])
///     }
///     fn evaluate(&self, inputs: &[Tensor]) -> OpResult<Vec<Tensor>> {
///         # let _ = inputs; Ok(vec![])
///     }
/// }
/// ```
/// A field written `name as "irName": type = default` has another name in IR than in Rust.
#[macro_export]
macro_rules! define_op {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident($text:literal, $opset:literal) {
            $($(#[$fmeta:meta])* $field:ident $(as $ir:literal)? : $ty:ty = $default:expr),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::op::OpAttributes for $name {
            const KIND: $crate::op::OpKind = $crate::op::OpKind { name: $text, opset: $opset };

            #[allow(unused_variables, reason = "operators without attributes do not use the visitor")]
            fn visit(&mut self, visitor: &mut dyn $crate::op::AttributeVisitor) -> $crate::op::OpResult<()> {
                $(visitor.visit($crate::define_op!(@name $field $($ir)?), (&mut self.$field).into())?;)*
                Ok(())
            }
        }
    };
    (@name $field:ident $ir:literal) => { $ir };
    (@name $field:ident) => { stringify!($field) };
}

/// One line of an operator table.
#[derive(Clone, Copy, Debug)]
pub struct OpEntry {
    /// Name and version.
    pub kind: OpKind,
    /// An instance with default attributes.
    pub create: fn() -> Box<dyn Op>,
}

impl OpEntry {
    /// The entry of an operator type.
    #[must_use]
    pub const fn of<T: Op + OpAttributes + Default>() -> Self {
        Self { kind: T::KIND, create: || Box::new(T::default()) }
    }
}

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(pub mod $family;)*

        /// Every family's operators.
        pub const FAMILIES: &[&[OpEntry]] = &[$($family::OPS),*];
    };
}

families!(
    activation,
    arithmetic,
    attention,
    comparison,
    concat,
    control_flow,
    convert,
    convolution,
    core,
    deformable,
    einsum,
    fused,
    gather,
    generate,
    logical,
    matmul,
    ml,
    normalization,
    pad,
    pooling,
    quantize,
    random,
    recurrent,
    reduction,
    reshape,
    resize,
    scatter,
    select,
    sequence,
    signal,
    slice,
    softmax,
    state,
    text,
    topk,
    transpose,
    vision,
);

/// Every operator there is.
pub fn all() -> impl Iterator<Item = &'static OpEntry> {
    FAMILIES.iter().copied().flatten()
}

/// The newest version of operator `name` that is not newer than `opset`; ov's own operators have opset 0.
#[must_use]
pub fn find(name: &str, opset: u32) -> Option<&'static OpEntry> {
    all().filter(|e| e.kind.name == name && e.kind.opset <= opset).max_by_key(|e| e.kind.opset)
}
