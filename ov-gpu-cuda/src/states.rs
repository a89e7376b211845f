//! The variables of a request, in the memory of the GPU that it ran on last.
//!
//! A variable has two pieces of memory: its value, and room for the next one. They change places after an inference that
//! went well, so that nothing is copied and one that fails leaves the value as it was; a step that changes some elements
//! of the value works in place (see `plan/kept.rs`). Values come to the host only when the user asks for them, and leave
//! it when the user has set them. What lies on a GPU that is lost cannot be read any more: inferences of the request
//! then fail until every variable is set or started again.

use ov_core::{
    ElementType, Error, Shape, Tensor,
    error::{DeviceError, Result},
    model::Variable,
    states::States,
};

use crate::{
    DEVICE_NAME,
    driver::{Device, DeviceMemory, DriverError},
    loaded::failed,
    plan::{Kept, KeptFrom, StateMemory, StatePort, StateUse},
    slot::Slot,
};

/// The variables of a request.
#[derive(Debug)]
pub(crate) struct DeviceStates {
    states: Option<States>,
    /// Tensors of the hidden inputs; absent for values that lie on a GPU.
    hidden: Vec<Tensor>,
    /// Of each hidden input, the variable whose value it is.
    values: Vec<Option<usize>>,
    held: Vec<Held>,
    /// Kept so that an inference allocates nothing for it.
    given: Vec<Tensor>,
}

/// One variable.
#[derive(Debug)]
struct Held {
    name: String,
    /// Its value's place in the hidden inputs.
    hidden: usize,
    element_type: ElementType,
    shape: Shape,
    place: Place,
    /// Memory of the value when `place` says so; memory that can be used for it otherwise.
    value: Option<DeviceMemory>,
    /// Room for the next value.
    room: Option<DeviceMemory>,
    /// What the inference that runs now gives.
    next: Option<Next>,
    /// Whether `value` was filled for it from zeros or the host.
    brought: bool,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Zeros.
    Zeros,
    /// In the tensor of the hidden input.
    Host,
    /// On a GPU.
    Device,
}

#[derive(Debug)]
enum Next {
    Same,
    Written(Shape),
    Host(Tensor),
}

impl DeviceStates {
    /// The variables of a new request.
    ///
    /// # Errors
    /// When there is no memory for an initial value.
    pub(crate) fn new(variables: &[Variable], ports: &[StatePort]) -> Result<Self> {
        let states = States::new(variables.to_vec())?;
        let hidden = states.initial().to_vec();
        let first = ports.first().map_or(0, |p| p.input);
        let mut values = vec![None; hidden.len()];
        let mut held = Vec::with_capacity(ports.len());
        for (variable, (port, named)) in ports.iter().zip(variables).enumerate() {
            let at = port.input - first;
            let Some(tensor) = hidden.get(at) else { continue };
            values[at] = Some(variable);
            held.push(Held {
                name: named.name.clone(),
                hidden: at,
                element_type: tensor.element_type(),
                shape: tensor.shape().clone(),
                place: Place::Zeros,
                value: None,
                room: None,
                next: None,
                brought: false,
            });
        }
        let given = Vec::with_capacity(held.len());
        Ok(Self { states: Some(states), hidden, values, held, given })
    }

    /// None, for programs without.
    pub(crate) fn none() -> Self {
        Self {
            states: None,
            hidden: Vec::new(),
            values: Vec::new(),
            held: Vec::new(),
            given: Vec::new(),
        }
    }

    /// Whether there are no variables.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Types of the hidden inputs.
    pub(crate) fn types(&self) -> impl Iterator<Item = (ElementType, &Shape)> {
        self.hidden.iter().zip(&self.values).map(|(tensor, variable)| match variable {
            Some(v) => (self.held[*v].element_type, &self.held[*v].shape),
            None => (tensor.element_type(), tensor.shape()),
        })
    }

    /// Tensors of the hidden inputs; those of values on a GPU are absent.
    pub(crate) fn hidden(&self) -> &[Tensor] {
        &self.hidden
    }

    /// Memory of a variable, where [`DeviceStates::ready`] saw to it.
    pub(crate) fn memory(&self, memory: StateMemory) -> Option<&DeviceMemory> {
        match memory {
            StateMemory::Before(v) => self.held.get(v)?.value.as_ref(),
            StateMemory::After(v) => self.held.get(v)?.room.as_ref(),
        }
    }

    /// Where the memory lies that a plan uses: before the inference, and after it; 0 where it uses none.
    pub(crate) fn addresses(&self, uses: &[StateUse]) -> impl Iterator<Item = [u64; 2]> {
        uses.iter().map(|u| {
            let at = |used: bool, memory| {
                self.memory(memory).filter(|_| used).map_or(0, DeviceMemory::address)
            };
            let before = at(u.before, StateMemory::Before(u.variable));
            [before, at(u.after.is_some(), StateMemory::After(u.variable))]
        })
    }

    /// Before an inference.
    pub(crate) fn begin(&mut self) {
        for held in &mut self.held {
            (held.next, held.brought) = (None, false);
        }
    }

    /// Brings to the slot's GPU what a plan uses.
    ///
    /// # Errors
    /// When memory runs out, or a value was on a GPU that is lost.
    pub(crate) fn ready(&mut self, uses: &[StateUse], slot: &Slot) -> Result<()> {
        for use_of in uses {
            let held = &mut self.held[use_of.variable];
            if use_of.before {
                held.bring(&self.hidden[held.hidden], slot)?;
            }
            if let Some(len) = use_of.after {
                held.make_room(len, slot)?;
            }
        }
        Ok(())
    }

    /// Remembers what the inference that runs now gives; `value` is there when it comes from the host.
    pub(crate) fn note(&mut self, kept: &Kept, value: Option<Tensor>) {
        let held = &mut self.held[kept.variable];
        held.next = Some(match (value, &kept.from) {
            (Some(value), _) => Next::Host(value),
            (None, KeptFrom::Written) => Next::Written(kept.shape.clone()),
            (None, _) => Next::Same,
        });
    }

    /// After an inference that went well: variables hold what it gave.
    pub(crate) fn advance(&mut self) {
        let Some(states) = &self.states else { return };
        self.given.clear();
        for held in &mut self.held {
            let here = std::mem::replace(&mut self.hidden[held.hidden], Tensor::absent());
            self.given.push(match held.next.take() {
                Some(Next::Host(value)) => {
                    held.shape = value.shape().clone();
                    held.place = Place::Host;
                    value
                }
                Some(Next::Written(shape)) => {
                    std::mem::swap(&mut held.value, &mut held.room);
                    held.shape = shape;
                    held.place = Place::Device;
                    Tensor::absent()
                }
                Some(Next::Same) if held.brought => {
                    held.place = Place::Device;
                    Tensor::absent()
                }
                Some(Next::Same) | None => here,
            });
        }
        states.advance(&mut self.hidden, &mut self.given);
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// When there is no such variable, or its value was on a GPU that is lost.
    pub(crate) fn value(&self, name: &str) -> Result<Tensor> {
        let on_device = |h: &&Held| h.name == name && h.place == Place::Device;
        match (self.held.iter().find(on_device), &self.states) {
            (Some(held), _) => held.read(),
            (None, Some(states)) => states.value(&self.hidden, name),
            (None, None) => States::new(Vec::new())?.value(&[], name),
        }
    }

    /// Sets a variable to a copy of `value`.
    ///
    /// # Errors
    /// When there is no such variable or the tensor does not fit.
    pub(crate) fn set(&mut self, name: &str, value: &Tensor) -> Result<()> {
        let Some(states) = &self.states else {
            return States::new(Vec::new())?.set(&mut [], name, value);
        };
        states.set(&mut self.hidden, name, value)?;
        if let Some(held) = self.held.iter_mut().find(|h| h.name == name) {
            held.place = Place::Host;
            held.shape = value.shape().clone();
        }
        Ok(())
    }

    /// Lets every variable start again.
    pub(crate) fn reset(&mut self) {
        let Some(states) = &self.states else { return };
        states.reset(&mut self.hidden);
        for held in &mut self.held {
            held.place = Place::Zeros;
            held.shape = self.hidden[held.hidden].shape().clone();
        }
    }
}

impl Held {
    fn len(&self) -> usize {
        self.element_type.byte_len(self.shape.elements()).unwrap_or(0)
    }

    /// Lets the value be in memory of the slot's GPU; `tensor` holds it when it is on the host.
    fn bring(&mut self, tensor: &Tensor, slot: &Slot) -> Result<()> {
        let device = slot.loaded().context.device();
        let len = self.len();
        if self.place == Place::Device {
            let Some(value) = self.value.take_if(|m| !is_on(m, slot)) else { return Ok(()) };
            let from = value.context().device();
            if from.is_lost() {
                let error = lost(from);
                self.value = Some(value);
                return Err(error);
            }
            let moved = allocate(len, slot)
                .and_then(|memory| memory.take(&value, len, slot.stream()).map(|()| memory));
            match moved {
                Ok(memory) => self.value = Some(memory),
                Err(error) => {
                    self.value = Some(value);
                    return Err(failed(device, error));
                }
            }
            return Ok(());
        }
        self.value.take_if(|m| m.len() < len || !is_on(m, slot));
        let filled = (|| {
            let memory = match self.value.take() {
                Some(memory) => memory,
                None => allocate(len, slot)?,
            };
            match self.place {
                Place::Zeros => memory.zero(slot.stream())?,
                _ => memory.fill(tensor.to_contiguous().unaligned_bytes(), slot.stream())?,
            }
            Ok(memory)
        })();
        self.value = Some(filled.map_err(|e| failed(device, e))?);
        self.brought = true;
        Ok(())
    }

    /// Lets there be room for `len` bytes on the slot's GPU.
    fn make_room(&mut self, len: usize, slot: &Slot) -> Result<()> {
        self.room.take_if(|m| m.len() < len || !is_on(m, slot));
        if self.room.is_none() {
            // Values that grow do so little by little.
            let len = if self.len() == len { len } else { len + len / 2 };
            let memory = allocate(len, slot);
            self.room = Some(memory.map_err(|e| failed(slot.loaded().context.device(), e))?);
        }
        Ok(())
    }

    fn read(&self) -> Result<Tensor> {
        let mut tensor = Tensor::zeros(self.element_type, self.shape.clone())?;
        let Some(value) = &self.value else { return Ok(tensor) };
        let device = value.context().device();
        if device.is_lost() {
            return Err(lost(device));
        }
        value.read(tensor.bytes_mut()?).map_err(|e| failed(device, e))?;
        Ok(tensor)
    }
}

fn is_on(memory: &DeviceMemory, slot: &Slot) -> bool {
    memory.context().device().ordinal == slot.loaded().context.device().ordinal
}

fn allocate(len: usize, slot: &Slot) -> Result<DeviceMemory, DriverError> {
    DeviceMemory::new(&slot.loaded().context, len)
}

fn lost(device: &Device) -> Error {
    let name = format!("{DEVICE_NAME}.{}", device.ordinal);
    let reason = "an earlier error has corrupted its context, and states of this request were there: set all of them, or \
                  start again with reset_states"
        .to_owned();
    DeviceError::NotUsable { name, reason }.into()
}
