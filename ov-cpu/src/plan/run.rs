//! Runs plans: one parallel region per stage, barriers between steps, stages one after another.
#![allow(unsafe_code, reason = "reads planned memory between steps")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use ov_core::{
    ElementType, Shape, Tensor,
    error::{InferError, Result},
    op::OpError,
};

use super::{
    Executable, Given, Home, Known, Plan, PlannedStep, Tail, build,
    frame::{self, Frame},
};
use crate::{
    nodes::{Io, LentInput, Results, evaluate_lent},
    priority::Control,
    simd::denormals::FlushDenormals,
    team::{Barrier, Team},
};

/// Time of one step in one inference.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// Index in [`crate::program::Program::nodes`].
    pub node: usize,
    /// Duration.
    pub duration: Duration,
    /// Whether several threads shared the work.
    pub parallel: bool,
}

/// Times of the steps of the last inference.
pub type Profile = Vec<StepTime>;

/// Runs one executable for one request: holds its memory and the plan of the last shapes.
#[derive(Debug)]
pub struct Runner {
    exe: Arc<Executable>,
    team: Arc<Team>,
    frames: Vec<Frame>,
    barrier: Barrier,
    /// Runners of the bodies of the last control-flow nodes, by node.
    bodies: Vec<(usize, Vec<Self>)>,
    profile: Option<Profile>,
}

impl Runner {
    /// A runner on `team`. With `profile`, every inference is timed step by step.
    #[must_use]
    pub fn new(exe: Arc<Executable>, team: Arc<Team>, profile: bool) -> Self {
        let barrier = Barrier::new(team.threads());
        Self {
            exe,
            team,
            frames: Vec::new(),
            barrier,
            bodies: Vec::new(),
            profile: profile.then(Vec::new),
        }
    }

    /// Times of the last inference, empty unless asked for.
    #[must_use]
    pub fn profile(&self) -> &[StepTime] {
        self.profile.as_deref().unwrap_or_default()
    }

    /// The executable.
    #[must_use]
    pub fn executable(&self) -> &Arc<Executable> {
        &self.exe
    }

    /// Makes the first inference with inputs of these shapes as cheap as the later ones.
    ///
    /// # Errors
    /// When an operator refuses the shapes or memory is short.
    pub fn prepare(&mut self, inputs: &[Tensor]) -> Result<()> {
        let plan = self.plan(inputs)?;
        self.frame(0, &plan)
    }

    /// The plan for inputs of these shapes.
    fn plan(&self, inputs: &[Tensor]) -> Result<Arc<Plan>> {
        let current = self.frames.first().and_then(|f| f.plan.as_ref()).filter(|p| {
            p.inputs.len() == inputs.len()
                && p.inputs
                    .iter()
                    .zip(inputs)
                    .all(|((ty, s), t)| *ty == t.element_type() && s == t.shape())
        });
        match current {
            Some(plan) => Ok(Arc::clone(plan)),
            None => {
                let signature: Vec<(ElementType, Shape)> =
                    inputs.iter().map(|t| (t.element_type(), t.shape().clone())).collect();
                self.exe.plan(&signature).map_err(infer_error)
            }
        }
    }

    /// Makes the memory of a stage ready for `plan`.
    fn frame(&mut self, stage: usize, plan: &Arc<Plan>) -> Result<()> {
        if self.frames.len() <= stage {
            self.frames.push(Frame::default());
        }
        self.frames[stage].prepare(plan, &self.team).map_err(|e| other(e.to_string()))
    }

    /// One inference. `inputs` are contiguous tensors of the types of the program's inputs. `outputs` are written in
    /// place where type and shape fit and the memory is free, else replaced; those that are `fixed` are the caller's
    /// memory and are never replaced.
    ///
    /// # Errors
    /// When an operator refuses shapes or values, a fixed output does not fit, memory is short, or the inference was cancelled.
    pub fn run(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
        fixed: &[bool],
        control: &Control<'_>,
    ) -> Result<()> {
        let mut plan = self.plan(inputs)?;
        if let Some(profile) = &mut self.profile {
            profile.clear();
        }
        let mut stage = 0;
        loop {
            self.run_stage(stage, &plan, inputs, outputs, fixed, control)?;
            let Some(tail) = &plan.tail else { return Ok(()) };
            self.run_tail(stage, tail, inputs, control)?;
            let made: Vec<(ElementType, Shape)> = self.frames[stage]
                .tail
                .iter()
                .map(|t| (t.element_type(), t.shape().clone()))
                .collect();
            stage += 1;
            let next = next_plan(&self.exe, stage, tail, made)?;
            plan = next;
        }
    }

    /// As [`Runner::run`], after checking the inputs against the program's: for values that an operator computed.
    pub(crate) fn run_checked(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
        control: &Control<'_>,
    ) -> Result<()> {
        let program = &self.exe.program;
        if inputs.len() != program.inputs.len() {
            return Err(other(format!(
                "{} values given to {:?}, which has {} inputs",
                inputs.len(),
                program.name,
                program.inputs.len()
            )));
        }
        let mut contiguous = Vec::with_capacity(inputs.len());
        for (port, tensor) in program.inputs.iter().zip(inputs) {
            let desc = &program.values[port.value as usize];
            let fits = desc.element_type == tensor.element_type()
                || desc.element_type == ElementType::Dynamic;
            if !fits || !desc.shape.admits(tensor.shape()) {
                return Err(InferError::Mismatch {
                    direction: "input",
                    port: port.name.clone(),
                    expected: format!("{}{}", desc.element_type, desc.shape),
                    got: format!("{}{}", tensor.element_type(), tensor.shape()),
                }
                .into());
            }
            contiguous.push(tensor.to_contiguous());
        }
        self.run(&contiguous, outputs, &[], control)
    }

    fn run_stage(
        &mut self,
        stage: usize,
        plan: &Arc<Plan>,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
        fixed: &[bool],
        control: &Control<'_>,
    ) -> Result<()> {
        self.frame(stage, plan)?;
        let threads = self.team.threads();
        let (earlier, rest) = self.frames.split_at_mut(stage);
        let frame = &mut rest[0];
        for given in &plan.given {
            let tensor = &mut outputs[given.output];
            if let Some(held) = &given.held {
                *tensor = held.clone();
                continue;
            }
            if let Some(holder) = given.holder {
                if let Some(held) = frame::held(earlier, inputs, holder) {
                    *tensor = held.clone();
                }
                continue;
            }
            let fits =
                tensor.element_type() == given.element_type && *tensor.shape() == given.shape;
            if fixed.get(given.output) == Some(&true) {
                if !fits {
                    return Err(mismatch(
                        &self.exe.program.outputs[given.output].name,
                        given,
                        tensor,
                    ));
                }
            } else if !fits || !tensor.is_writable() {
                *tensor = Tensor::zeros(given.element_type, given.shape.clone())
                    .map_err(InferError::Tensor)?;
            }
        }
        for (address, slot) in frame.addresses.iter_mut().zip(&plan.slots) {
            match slot.home {
                Home::Input(i) => *address = inputs[i].bytes().as_ptr().cast_mut(),
                Home::Output(i) => {
                    *address = outputs[i].bytes_mut().map_err(InferError::Tensor)?.as_mut_ptr();
                }
                Home::Earlier(source) => *address = frame::earlier(earlier, source),
                Home::Arena(_) | Home::Held(_) => {}
            }
        }
        let region =
            Region { plan, frame, barrier: &self.barrier, control, failure: Mutex::new(None) };
        let mut done = false;
        self.barrier.reset();
        if let Some(profile) = &mut self.profile {
            region.run_timed(&self.team, profile);
            done = true;
        } else if plan.parallel && threads > 1 {
            for counter in &frame.counters {
                counter.store(0, Ordering::Relaxed);
            }
            done = self.team.run(&|thread| region.work(thread, threads));
        }
        if !done {
            region.work(0, 1);
        }
        if let Some((node, error)) =
            region.failure.into_inner().unwrap_or_else(PoisonError::into_inner)
        {
            let node = node.map(|n| self.exe.node(n));
            return Err(match (error, node) {
                (Failure::Canceled, _) => InferError::Canceled.into(),
                (Failure::Op(source), Some(n)) => {
                    InferError::Op { op: n.op.kind().to_string(), node: n.name.clone(), source }
                        .into()
                }
                (Failure::Op(source), None) => other(source.to_string()),
            });
        }
        for given in &plan.given {
            if let Some(slot) = given.copy_from {
                // SAFETY: no step is running, and the addresses are those of this inference.
                let bytes = unsafe { frame.bytes(slot) };
                outputs[given.output]
                    .bytes_mut()
                    .map_err(InferError::Tensor)?
                    .copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Runs the node that ends a stage.
    fn run_tail(
        &mut self,
        stage: usize,
        tail: &Tail,
        model_inputs: &[Tensor],
        control: &Control<'_>,
    ) -> Result<()> {
        control.hold_back();
        if control.is_canceled() {
            return Err(InferError::Canceled.into());
        }
        let start = Instant::now();
        let node = self.exe.node(tail.node);
        let context = |source: OpError| InferError::Op {
            op: node.op.kind().to_string(),
            node: node.name.clone(),
            source,
        };
        let lent: Vec<(ElementType, &Shape, LentInput<'_>)> = tail
            .inputs
            .iter()
            .map(|known| match known {
                Known::Value(t) => (t.element_type(), t.shape(), LentInput::Held(t)),
                Known::Memory { element_type, shape, source } => {
                    let memory = match *source {
                        super::Source::Tail { stage, output } => {
                            LentInput::Held(&self.frames[stage].tail[output])
                        }
                        super::Source::Input(index) => LentInput::Held(&model_inputs[index]),
                        super::Source::Slot { stage, slot } => {
                            // SAFETY: no step is running; the frame's addresses are those of this inference.
                            LentInput::Bytes(unsafe { self.frames[stage].bytes(slot) })
                        }
                    };
                    (*element_type, shape, memory)
                }
            })
            .collect();
        let results = if self.exe.bodies[tail.node].is_empty() {
            evaluate_lent(&*node.op, &lent, Results::Unknown).map_err(context)?
        } else {
            let arguments = lent
                .iter()
                .map(|(ty, shape, memory)| match memory {
                    LentInput::Held(t) => Ok((*t).clone()),
                    LentInput::Bytes(b) => Tensor::from_bytes(*ty, (*shape).clone(), b),
                })
                .collect::<std::result::Result<Vec<_>, _>>()
                .map_err(InferError::Tensor)?;
            drop(lent);
            let at = match self.bodies.iter().position(|(n, _)| *n == tail.node) {
                Some(at) => at,
                None => {
                    let runners = self.exe.bodies[tail.node]
                        .iter()
                        .map(|b| Self::new(Arc::clone(b), Arc::clone(&self.team), false))
                        .collect();
                    self.bodies.push((tail.node, runners));
                    self.bodies.len() - 1
                }
            };
            crate::control_flow::run(
                &*self.exe.node(tail.node).op,
                &mut self.bodies[at].1,
                &arguments,
                control,
            )?
        };
        if results.len() < self.exe.node(tail.node).outputs.len() {
            return Err(other(format!(
                "{:?} gave {} outputs",
                self.exe.node(tail.node).name,
                results.len()
            )));
        }
        self.frames[stage].tail = results.into_iter().map(|t| t.to_contiguous()).collect();
        if let Some(profile) = &mut self.profile {
            profile.push(StepTime { node: tail.node, duration: start.elapsed(), parallel: false });
        }
        Ok(())
    }
}

fn next_plan(
    exe: &Executable,
    stage: usize,
    tail: &Tail,
    made: Vec<(ElementType, Shape)>,
) -> Result<Arc<Plan>> {
    let mut plans = tail.next.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(plan) = plans.find(|key| *key == made) {
        return Ok(plan);
    }
    let plan = Arc::new(build::next(exe, stage, tail, &made).map_err(infer_error)?);
    plans.insert(made, Arc::clone(&plan));
    Ok(plan)
}

fn mismatch(port: &str, given: &Given, tensor: &Tensor) -> ov_core::Error {
    InferError::Mismatch {
        direction: "output",
        port: port.to_owned(),
        expected: format!("{}{}", given.element_type, given.shape),
        got: format!("{}{} of the caller", tensor.element_type(), tensor.shape()),
    }
    .into()
}

fn other(detail: String) -> ov_core::Error {
    InferError::Other { device: "CPU".to_owned(), detail }.into()
}

fn infer_error(e: super::BuildError) -> ov_core::Error {
    InferError::Op { op: e.op, node: e.node, source: e.source }.into()
}

#[derive(Debug)]
enum Failure {
    Op(OpError),
    Canceled,
}

/// The steps of a stage, as every thread of the team runs them.
struct Region<'a> {
    plan: &'a Plan,
    frame: &'a Frame,
    barrier: &'a Barrier,
    control: &'a Control<'a>,
    failure: Mutex<Option<(Option<usize>, Failure)>>,
}

impl Region<'_> {
    fn fail(&self, node: Option<usize>, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((node, failure));
        self.barrier.break_it();
    }

    fn work(&self, thread: usize, threads: usize) {
        let _flush = FlushDenormals::new();
        for (index, step) in self.plan.steps.iter().enumerate() {
            // One thread decides for all: the others wait for it in the barrier.
            if thread == 0 && (threads == 1 || step.sync) {
                self.control.hold_back();
            }
            if threads > 1 && step.sync && !self.barrier.wait_or(|| self.control.hold_back()) {
                return;
            }
            if thread == 0 && self.control.is_canceled() {
                self.fail(None, Failure::Canceled);
                return;
            }
            if (thread == 0 || step.parallel) && !self.run_step(index, step, thread, threads) {
                return;
            }
        }
    }

    /// A thread's share of a step; false when it failed.
    fn run_step(&self, index: usize, step: &PlannedStep, thread: usize, threads: usize) -> bool {
        let shared = step.parallel && threads > 1 && (!step.waits || step.items == threads);
        if !shared && thread > 0 {
            return true;
        }
        let io = Io {
            addresses: &self.frame.addresses,
            lens: &self.frame.lens,
            inputs: &step.inputs,
            outputs: &step.outputs,
            barrier: (shared && step.waits).then_some(self.barrier),
        };
        // SAFETY: this is the only use of this thread's scratch memory until the step is done.
        let scratch = unsafe { self.frame.scratch(thread) };
        let share = |t: usize| (step.items * t / threads)..(step.items * (t + 1) / threads);
        let result = catch_unwind(AssertUnwindSafe(|| match (shared, step.chunk) {
            (false, _) => step.step.run(&io, 0..step.items, scratch),
            (true, None) => {
                let own = share(thread);
                if own.is_empty() { Ok(()) } else { step.step.run(&io, own, scratch) }
            }
            // Each thread works through its own share, whose data is in its caches, and then
            // helps the others.
            (true, Some(chunk)) => {
                for owner in (thread..threads).chain(0..thread) {
                    let (left, counter) =
                        (share(owner), &self.frame.counters[index * threads + owner]);
                    loop {
                        let start = left.start + counter.fetch_add(chunk, Ordering::Relaxed);
                        if start >= left.end {
                            break;
                        }
                        step.step.run(&io, start..(start + chunk).min(left.end), scratch)?;
                    }
                }
                Ok(())
            }
        }));
        let failure = match result {
            Ok(Ok(())) => return true,
            Ok(Err(e)) => e,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                OpError::Invalid(format!("the kernel panicked: {}", text.unwrap_or_default()))
            }
        };
        self.fail(Some(step.node), Failure::Op(failure));
        false
    }

    /// Runs step by step, each alone between two looks at the clock.
    fn run_timed(&self, team: &Team, profile: &mut Vec<StepTime>) {
        for (index, step) in self.plan.steps.iter().enumerate() {
            self.control.hold_back();
            if self.control.is_canceled() {
                return self.fail(None, Failure::Canceled);
            }
            let threads = team.threads();
            for counter in &self.frame.counters[index * threads..][..threads] {
                counter.store(0, Ordering::Relaxed);
            }
            let start = Instant::now();
            let shared = step.parallel && self.plan.parallel && threads > 1;
            let run_share = |thread: usize, threads: usize| {
                let _flush = FlushDenormals::new();
                self.run_step(index, step, thread, threads);
            };
            if !(shared && team.run(&|thread| run_share(thread, threads))) {
                run_share(0, 1);
            }
            profile.push(StepTime { node: step.node, duration: start.elapsed(), parallel: shared });
            if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
        }
    }
}
