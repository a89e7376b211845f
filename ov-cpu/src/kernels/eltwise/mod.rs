//! Element-wise operations: unary, broadcast binary, comparisons, select and fused programs.

pub mod binary;
pub mod broadcast;
pub mod predicate;
pub mod program;
pub mod trig;
pub mod unary;

pub use binary::{
    BinaryOp, CompareOp, IntBinaryOp, LogicOp, Number, binary_f32, binary_int, compare, logic,
    select,
};
pub use broadcast::{BroadcastError, BroadcastPlan};
pub use program::{Instruction, Program, ProgramPlan};
pub use unary::{UnaryOp, unary_f32, unary_in_place};
