//! Nodes through their kernels on the processor, compared with the reference.

use ov_core::{
    ElementType, PartialShape, Shape, Tensor,
    op::{InferContext, InputInfo, Op, OutputType},
};

use super::{
    HostCompiler, HostModule, Order,
    hardware::{Lab, Operands},
    memory::Guarded,
    module::Shape as LaunchShape,
};
use crate::{
    kernels::{
        Arg, Binding, Bound, BoundInput, BoundOutput, Choice, Gpu, InputDesc, Kernel, Launch,
        Reject, Selecting, Step,
    },
    program::ALIGNMENT,
};

/// The GPU that tests choose kernels for: an H100.
pub(crate) const H100: Gpu =
    Gpu { capability: (9, 0), multiprocessors: 132, shared_per_block: 227 << 10 };

/// A node that a kernel is tried with.
#[derive(Clone, Copy)]
pub(crate) struct KernelTest<'a> {
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// The operator.
    pub(crate) op: &'a dyn Op,
    /// Its inputs, in the types that the kernel is to take.
    pub(crate) inputs: &'a [Tensor],
    /// Which of them are constants.
    pub(crate) constants: &'a [usize],
    /// What must come out. `None`: what the operator evaluates to, in f32 where inputs are f16 or bf16.
    pub(crate) expected: Option<&'a [Tensor]>,
    /// Relative to the value.
    pub(crate) rtol: f64,
    /// Beside it.
    pub(crate) atol: f64,
    /// The GPU.
    pub(crate) gpu: Gpu,
}

impl<'a> KernelTest<'a> {
    /// A node without constants, compared with the reference within `tolerance` of each value and beside it.
    pub(crate) fn new(
        kernel: &'a Kernel,
        op: &'a dyn Op,
        inputs: &'a [Tensor],
        tolerance: f64,
    ) -> Self {
        Self {
            kernel,
            op,
            inputs,
            constants: &[],
            expected: None,
            rtol: tolerance,
            atol: tolerance,
            gpu: H100,
        }
    }

    /// The same with these inputs as constants.
    pub(crate) fn constants(self, constants: &'a [usize]) -> Self {
        Self { constants, ..self }
    }

    /// Whether an input is a constant; absent ones are.
    fn is_constant(&self, index: usize) -> bool {
        self.constants.contains(&index) || self.inputs[index].is_absent()
    }

    /// Types of the outputs.
    fn outputs(&self) -> Vec<OutputType> {
        let shapes: Vec<_> = self.inputs.iter().map(|t| PartialShape::from(t.shape())).collect();
        let infos: Vec<_> = self
            .inputs
            .iter()
            .zip(&shapes)
            .map(|(t, shape)| InputInfo {
                element_type: t.element_type(),
                shape,
                value: Some(t),
                dims: None,
            })
            .collect();
        self.op.infer(&InferContext { inputs: &infos }).expect("the node is valid")
    }

    fn reference(&self) -> Vec<Tensor> {
        if let Some(expected) = self.expected {
            return expected.to_vec();
        }
        let short = |t: ElementType| matches!(t, ElementType::F16 | ElementType::Bf16);
        let wide: Vec<Tensor> = self
            .inputs
            .iter()
            .map(|t| {
                if short(t.element_type()) {
                    t.cast(ElementType::F32).expect("floats widen")
                } else {
                    t.clone()
                }
            })
            .collect();
        self.op.evaluate(&wide).expect("the reference evaluates the node")
    }
}

/// What the kernel makes of the node.
///
/// # Errors
/// Why it does not take it; `None` inside when it is not one of its own.
pub(crate) fn bind(test: &KernelTest<'_>) -> Result<(Choice, Bound), Option<Reject>> {
    let outputs = test.outputs();
    let partial: Vec<_> = test.inputs.iter().map(|t| PartialShape::from(t.shape())).collect();
    let inputs: Vec<_> = test
        .inputs
        .iter()
        .enumerate()
        .map(|(i, t)| InputDesc {
            element_type: t.element_type(),
            shape: &partial[i],
            constant: test.is_constant(i).then_some(t),
        })
        .collect();
    let node = Selecting {
        op: test.op,
        inputs: &inputs,
        outputs: &outputs,
        gpu: test.gpu,
        specified: false,
    };
    let choice = (test.kernel.select)(&node).ok_or(None)?.map_err(Some)?;
    let inputs: Vec<_> = test
        .inputs
        .iter()
        .enumerate()
        .map(|(i, t)| BoundInput {
            element_type: t.element_type(),
            shape: t.shape(),
            value: (test.is_constant(i) || choice.host.contains(&i)).then_some(t),
        })
        .collect();
    let shapes: Vec<Shape> =
        outputs.iter().map(|o| o.shape.to_shape().expect("shapes are known")).collect();
    let outputs: Vec<_> = outputs
        .iter()
        .zip(&shapes)
        .map(|(o, shape)| BoundOutput { element_type: o.element_type, shape })
        .collect();
    let node = Binding {
        op: test.op,
        inputs: &inputs,
        outputs: &outputs,
        params: &choice.params,
        gpu: test.gpu,
    };
    let bound = (test.kernel.bind)(&node).map_err(Some)?;
    Ok((choice, bound))
}

/// Runs the node in every [`Order`], twice in each, and compares it with the reference. Also checked: nothing beside the
/// outputs is written, inputs stay, memory that a step wants zeroed is left so, and nothing is read before
/// `ov_grid_wait` but packed weights and constants.
#[track_caller]
pub(crate) fn check(test: &KernelTest<'_>) {
    let (choice, bound) =
        bind(test).unwrap_or_else(|e| panic!("{:?} is not taken: {e:?}", test.op));
    let expected = test.reference();
    let step = match bound {
        Bound::Step(step) => step,
        Bound::Alias(input) => {
            let got = Tensor::from_bytes(
                test.outputs()[0].element_type,
                expected[0].shape().clone(),
                test.inputs[input].bytes(),
            )
            .expect("an alias is as large as its input");
            return compare(test, &[got], &expected, "alias");
        }
    };
    let packed: Vec<Vec<u8>> = choice
        .packed
        .into_iter()
        .map(|pack| {
            let mut bytes = vec![0; pack.len];
            (pack.fill)(&mut bytes);
            bytes
        })
        .collect();
    if let Some(lab) = Lab::get() {
        return check_on(lab, test, &packed, &step, &expected);
    }
    let Some(compiler) = HostCompiler::get() else { return };
    let mut memory = Memory::new(test, &packed, &step);
    for order in Order::ALL {
        for round in 0..2 {
            let what = format!("{order:?}, round {round}");
            for launch in &step.launches {
                memory
                    .run(compiler, launch, order)
                    .unwrap_or_else(|e| panic!("{}: {what}: {e}", test.kernel.name));
            }
            memory.check(test).unwrap_or_else(|e| panic!("{}: {what}: {e}", test.kernel.name));
            compare(test, &memory.results(test), &expected, &what);
        }
    }
}

/// Runs a step twice on a GPU and compares what comes out.
#[track_caller]
fn check_on(
    lab: &Lab,
    test: &KernelTest<'_>,
    packed: &[Vec<u8>],
    step: &Step,
    expected: &[Tensor],
) {
    // Products and sums are one operation there, and functions are the GPU's.
    const ROUNDING: f64 = 2e-6;
    let types = test.outputs();
    let shape = |o: &OutputType| o.shape.to_shape().expect("known");
    let len = |o: &OutputType| o.element_type.byte_len(shape(o).elements()).expect("fits");
    let operands = Operands {
        inputs: test.inputs.iter().map(|t| t.to_contiguous().bytes().to_vec()).collect(),
        outputs: types.iter().map(|o| vec![0xff; len(o)]).collect(),
        packed: packed.to_vec(),
    };
    let test = KernelTest { rtol: test.rtol.max(ROUNDING), atol: test.atol.max(ROUNDING), ..*test };
    let rounds = lab
        .run(step, &operands, 2)
        .unwrap_or_else(|e| panic!("{}: {:?} on the GPU: {e}", test.kernel.name, test.op));
    for (round, outputs) in rounds.into_iter().enumerate() {
        let got: Vec<Tensor> = outputs
            .iter()
            .zip(&types)
            .map(|(bytes, o)| Tensor::from_bytes(o.element_type, shape(o), bytes).expect("fits"))
            .collect();
        compare(&test, &got, expected, &format!("on the GPU, round {round}"));
    }
}

#[track_caller]
fn compare(test: &KernelTest<'_>, got: &[Tensor], expected: &[Tensor], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: outputs");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        // The reference may have computed in f32.
        let wide = got.cast(expected.element_type()).expect("outputs are numbers");
        if let Err(e) = ov_core::testing::compare(&wide, expected, test.rtol, test.atol) {
            let shapes: Vec<String> =
                test.inputs.iter().map(|t| format!("{}{}", t.element_type(), t.shape())).collect();
            panic!("{}: {what}: {:?} of {shapes:?}: output {i}: {e}", test.kernel.name, test.op);
        }
    }
}

struct Memory<'a> {
    inputs: Vec<Guarded>,
    constants: &'a [usize],
    outputs: Vec<Guarded>,
    packed: Vec<Guarded>,
    /// The part of the scratch memory that is zero between launches, and the rest of it, from `rest_at` on.
    zeroed: Guarded,
    rest: Guarded,
    rest_at: usize,
}

impl<'a> Memory<'a> {
    fn new(test: &KernelTest<'a>, packed: &[Vec<u8>], step: &Step) -> Self {
        // As plans place them.
        let rest_at = step.zeroed / ALIGNMENT * ALIGNMENT;
        Self {
            inputs: test.inputs.iter().map(|t| Guarded::of(t.to_contiguous().bytes())).collect(),
            constants: test.constants,
            outputs: test
                .outputs()
                .iter()
                .map(|o| {
                    let len = o.shape.to_shape().expect("known").iter().product::<usize>();
                    Guarded::new(o.element_type.byte_len(len).expect("fits"))
                })
                .collect(),
            packed: packed.iter().map(|bytes| Guarded::of(bytes)).collect(),
            zeroed: Guarded::of(&vec![0; step.zeroed]),
            rest: Guarded::new(step.scratch.saturating_sub(rest_at)),
            rest_at,
        }
    }

    fn run(
        &mut self,
        compiler: &HostCompiler,
        launch: &Launch,
        order: Order,
    ) -> Result<(), String> {
        let module = HostModule::load(&compiler.object(&launch.source)?)?;
        let mut arguments: Vec<Vec<u8>> =
            launch.args.iter().map(|arg| self.argument(arg)).collect();
        let shape = LaunchShape { grid: launch.grid, block: launch.block, shared: launch.shared };
        let zeroed_outputs = self.outputs.iter_mut();
        let constants = self.constants;
        let inputs = self.inputs.iter_mut().enumerate().filter(|(i, _)| !constants.contains(i));
        let mut hidden: Vec<&mut Guarded> = inputs.map(|(_, m)| m).chain(zeroed_outputs).collect();
        hidden.extend([&mut self.zeroed, &mut self.rest]);
        let kept: Vec<Vec<u8>> = hidden
            .iter_mut()
            .map(|memory| {
                let kept = memory.bytes().to_vec();
                memory.bytes_mut().fill(0xff);
                kept
            })
            .collect();
        let mut restore = || {
            for (memory, kept) in hidden.iter_mut().zip(&kept) {
                memory.bytes_mut().copy_from_slice(kept);
            }
        };
        // SAFETY: the addresses are those of memory above, of the lengths that the step asks for.
        unsafe { module.launch(&launch.function, shape, &mut arguments, order, &mut restore) }
    }

    fn argument(&mut self, arg: &Arg) -> Vec<u8> {
        match arg {
            Arg::Input(i) => self.inputs[*i].address().to_le_bytes().to_vec(),
            Arg::Output(i) => self.outputs[*i].address().to_le_bytes().to_vec(),
            Arg::Packed(i) => self.packed[*i].address().to_le_bytes().to_vec(),
            Arg::Scratch(at) => {
                let address = match at.checked_sub(self.zeroed.bytes().len()) {
                    None => self.zeroed.address() + *at as u64,
                    Some(_) => self.rest.address() + (at - self.rest_at) as u64,
                };
                address.to_le_bytes().to_vec()
            }
            Arg::I32(v) => v.to_le_bytes().to_vec(),
            Arg::I64(v) => v.to_le_bytes().to_vec(),
            Arg::F32(v) => v.to_le_bytes().to_vec(),
            Arg::Bytes(bytes) => bytes.clone(),
        }
    }

    fn check(&self, test: &KernelTest<'_>) -> Result<(), String> {
        let parts = [("input", &self.inputs), ("output", &self.outputs), ("weights", &self.packed)];
        for (what, memories) in parts {
            if let Some(i) = memories.iter().position(|m| !m.is_intact()) {
                return Err(format!("a write beside {what} {i}"));
            }
        }
        if !self.zeroed.is_intact() || !self.rest.is_intact() {
            return Err("a write beside the scratch memory".to_owned());
        }
        if self.zeroed.bytes().iter().any(|b| *b != 0) {
            return Err("the zeroed scratch memory is not zero again".to_owned());
        }
        let changed = |(m, t): (&Guarded, &Tensor)| m.bytes() != t.to_contiguous().bytes();
        match self.inputs.iter().zip(test.inputs).position(changed) {
            Some(i) => Err(format!("input {i} has changed")),
            None => Ok(()),
        }
    }

    /// The outputs; their memory then holds no numbers again.
    fn results(&mut self, test: &KernelTest<'_>) -> Vec<Tensor> {
        let types = test.outputs();
        self.outputs
            .iter_mut()
            .zip(types)
            .map(|(memory, ty)| {
                let shape = ty.shape.to_shape().expect("known");
                let tensor = Tensor::from_bytes(ty.element_type, shape, memory.bytes());
                memory.bytes_mut().fill(0xff);
                tensor.expect("the memory is as large as the tensor")
            })
            .collect()
    }
}

/// A tensor of values in -2..2, rounded to `element_type`; the same for a seed on every machine.
pub(crate) fn noise(element_type: ElementType, shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / 4_194_304.0 - 2.0
        })
        .collect();
    let tensor = Tensor::from_vec(shape, values).expect("as many values as the shape has");
    tensor.cast(element_type).expect("floats become any number")
}

#[test]
fn steps_run_by_the_driver_as_they_do_on_the_processor() {
    use ov_core::op::{matmul::MatMul, reduction::CumSum, softmax::SoftMax};

    use crate::{
        driver::{Api, Driver},
        kernels::KERNELS,
        testing::FakeCuda,
    };

    let Some(fake) = FakeCuda::new() else { return };
    let Some(compiler) = HostCompiler::get() else { return };
    let driver = Driver::start(Api::open(fake.path(), &[]).expect("whole")).expect("starts");
    let lab = Lab::on(&driver, compiler).expect("a context");
    let x = noise(ElementType::F32, &[9, 515], 1);
    let axis = Tensor::scalar(1i64);
    let cases: [(&dyn Op, &[Tensor], &[usize]); 3] = [
        // A product that several blocks share, and kernels of one launch.
        (&MatMul::default(), &[x.clone(), noise(ElementType::F32, &[515, 40], 2)], &[]),
        (&SoftMax { axis: 1 }, std::slice::from_ref(&x), &[]),
        (&CumSum::default(), &[x.clone(), axis], &[1]),
    ];
    for (op, inputs, constants) in cases {
        let test = |kernel| KernelTest::new(kernel, op, inputs, 1e-4).constants(constants);
        let (test, (choice, bound)) = KERNELS
            .iter()
            .find_map(|kernel| bind(&test(kernel)).ok().map(|bound| (test(kernel), bound)))
            .expect("a kernel takes it");
        let Bound::Step(step) = bound else { panic!("{op:?} launches nothing") };
        assert!(choice.packed.is_empty());
        check_on(&lab, &test, &[], &step, &test.reference());
    }
    assert!(fake.get("launches") >= 6);
}
