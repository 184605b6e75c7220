//! From a file to a stage: every tensor of its parts to its backend.

use std::collections::HashMap;
use std::ops::Range;

use metallic_gguf::{ByteOrder, GgmlType, Tensor};

use crate::backend::{Backend, BackendBytes, Needs, SwapNeeds};
use crate::error::Result;
use crate::memory::{
    ExpertPolicy, GgufFile, MatrixBytes, MatrixData, Places, ReaderKind, Resident, SharedBytes, Tier,
    WeightStream,
};
use crate::model::census::WeightMatrix;
use crate::model::decoder::Decoder;
use crate::model::part::Parts;
use crate::model::stage::Stage;
use crate::model::weights::{self, MatrixRole, WeightSource};
use crate::model::{Capacity, ModelConfig};
use crate::plan::{COPIES, ExpertPlaces, MatrixPlan, MemoryPlan};

/// What these matrices ask of slots.
pub(super) fn swap_needs<'a>(matrices: impl Iterator<Item = &'a WeightMatrix>) -> SwapNeeds {
    matrices.fold(SwapNeeds::default(), |most, matrix| SwapNeeds {
        row_bytes: most.row_bytes.max(matrix.row_bytes() as usize),
        matrix_bytes: most.matrix_bytes.max(matrix.bytes as usize),
    })
}

/// A backend whose type does not matter any more.
pub(super) trait Place: Send {
    /// See [`Backend::description`].
    fn description(&self) -> String;
    /// See [`Backend::memory`].
    fn memory(&self) -> Option<&Tier>;
    /// See [`Backend::shares_main_memory`].
    fn shares_main_memory(&self) -> bool;
    /// See [`Backend::check_room`].
    fn check_room(&self, planned_bytes: u64) -> Result<()>;
    /// See [`Backend::check`].
    fn check(&self, needs: &Needs<'_>, types: &[GgmlType]) -> Result<()>;
    /// See [`Backend::bytes`].
    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes;
    /// Loads its parts of a model.
    fn load(self: Box<Self>, load: StageLoad<'_>) -> Result<Box<dyn Stage>>;
}

impl<B: Backend + 'static> Place for B {
    fn description(&self) -> String {
        Backend::description(self)
    }

    fn memory(&self) -> Option<&Tier> {
        Backend::memory(self)
    }

    fn shares_main_memory(&self) -> bool {
        Backend::shares_main_memory(self)
    }

    fn check_room(&self, planned_bytes: u64) -> Result<()> {
        Backend::check_room(self, planned_bytes)
    }

    fn check(&self, needs: &Needs<'_>, types: &[GgmlType]) -> Result<()> {
        Backend::check(self, needs, types)
    }

    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes {
        Backend::bytes(self, needs)
    }

    fn load(mut self: Box<Self>, load: StageLoad<'_>) -> Result<Box<dyn Stage>> {
        self.charge_to(load.ram);
        load.load(*self)
    }
}

/// What a stage is loaded from.
pub(super) struct StageLoad<'a> {
    pub(super) file: &'a GgufFile,
    pub(super) config: &'a ModelConfig,
    pub(super) parts: Parts,
    pub(super) capacity: Capacity,
    pub(super) ram: &'a Tier,
    pub(super) plan: &'a MemoryPlan,
    /// The device whose stage it is.
    pub(super) device: Option<usize>,
    /// What has been read into memory already; other matrices are used in the file's map, or are streamed.
    pub(super) resident: &'a Resident,
    /// What reads those.
    pub(super) reader: Option<ReaderKind>,
    /// Which experts stay, where some are cached.
    pub(super) policy: ExpertPolicy,
}

impl StageLoad<'_> {
    /// Onto a backend.
    pub(super) fn load<B: Backend + 'static>(self, mut backend: B) -> Result<Box<dyn Stage>> {
        let Self { file, config, parts, capacity, ram, plan, device, resident, reader, policy } = self;
        let is_of =
            |matrix: &&MatrixPlan| device.is_some() && matrix.readers().any(|reader| reader == device);
        let of_device = plan.matrices.iter().filter(is_of);
        let of_device: HashMap<&str, &MatrixPlan> =
            of_device.map(|matrix| (matrix.weights.name.as_str(), matrix)).collect();
        if of_device.values().any(|matrix| matrix.host_bytes() > 0) {
            let stream = plan.stream.filter(|_| plan.has_stream(device));
            let stream = stream.map(|stream| WeightStream::new(file.open_direct()?, stream, reader, ram));
            let needs = swap_needs(of_device.values().map(|matrix| &matrix.weights));
            backend.reserve_slots(&needs, stream.transpose()?)?;
        }
        // Stages beside the first in main memory use the file's map.
        let streamed = plan.stream.is_some() && (device.is_none() || !of_device.is_empty());
        let mut load = Load { backend, file, resident, streamed, of_device, policy, ram };
        let weights = weights::build(&file.gguf(), config, &parts, &mut load)?;
        Ok(Box::new(Decoder::new(load.backend, config.clone(), &parts, weights, capacity, ram)?))
    }
}

/// The second pass: every tensor to the backend.
struct Load<'a, B> {
    backend: B,
    file: &'a GgufFile,
    /// Where some matrices have been read to, one perhaps in part.
    resident: &'a Resident,
    /// Whether what has not been read stays in the file, instead of being used in its map.
    streamed: bool,
    /// The matrices of a device with memory of its own, and those that are lent to it.
    of_device: HashMap<&'a str, &'a MatrixPlan>,
    policy: ExpertPolicy,
    ram: &'a Tier,
}

impl<B: Backend> Load<'_, B> {
    /// The rows of a tensor that main memory or the file is to have: all but the first `n_bytes`.
    fn after(&self, tensor: &Tensor<'_>, mapped: &SharedBytes, n_bytes: usize) -> Result<MatrixBytes> {
        if !self.streamed {
            return Ok(MatrixBytes::in_memory(mapped.slice(n_bytes..mapped.len())));
        }
        let memory = self.resident.get(tensor.name());
        let n_bytes = n_bytes + memory.as_ref().map_or(0, |bytes| bytes.len());
        let rest = GgufFile::range(tensor)?.after(n_bytes);
        Ok(MatrixBytes { memory, file: (rest.n_bytes > 0).then_some(rest) })
    }
}

impl<B: Backend> WeightSource for Load<'_, B> {
    type Matrix = B::Matrix;
    type Vector = B::Buffer;

    fn matrix(&mut self, tensor: Tensor<'_>, _: MatrixRole) -> Result<B::Matrix> {
        if tensor.byte_order() == ByteOrder::Big {
            let lease = self.ram.lease(COPIES, tensor.n_bytes())?;
            let mut data = self.file.matrix(&tensor)?;
            data.bytes.memory = data.bytes.memory.map(|copy| SharedBytes::new(lease.of(copy)));
            return self.backend.matrix(data);
        }
        let mut data = self.file.matrix(&tensor)?;
        let Some(mapped) = &data.bytes.memory else { unreachable!("the file is mapped") };
        match self.of_device.get(tensor.name()) {
            Some(MatrixPlan {
                device: Some(_), cache: Some(ExpertPlaces { n_experts, n_places }), ..
            }) => {
                data.bytes = self.after(&tensor, mapped, 0)?;
                self.backend.matrix_of_experts(data, Places::new(self.policy, *n_experts, *n_places))
            }
            Some(plan) if plan.host_bytes() > 0 => {
                let n_bytes = plan.device_bytes() as usize;
                let more = self.after(&tensor, mapped, n_bytes)?;
                let n_rows = plan.n_on_device as usize;
                let n_more = data.n_rows - n_rows;
                let bytes = MatrixBytes::in_memory(mapped.slice(0..n_bytes));
                self.backend.matrix_swapped(MatrixData { n_rows, bytes, ..data }, n_more, more)
            }
            Some(_) => self.backend.matrix(data),
            None => {
                data.bytes = self.after(&tensor, mapped, 0)?;
                self.backend.matrix(data)
            }
        }
    }

    fn rows(&self, matrix: &B::Matrix, rows: Range<usize>, _: usize) -> B::Matrix {
        self.backend.matrix_rows(matrix, rows)
    }

    fn vector(&mut self, tensor: Tensor<'_>, values: Range<usize>) -> Result<B::Buffer> {
        let all = self.file.floats(&tensor)?;
        let mut buffer = self.backend.buffer("a vector of weights", values.len())?;
        self.backend.write(&all[values], &mut buffer)?;
        Ok(buffer)
    }
}
