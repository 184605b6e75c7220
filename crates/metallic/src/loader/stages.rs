//! From a file to a stage: every tensor of its parts to its backend.

use std::collections::HashMap;
use std::ops::Range;

use metallic_gguf::{ByteOrder, GgmlType, Tensor};

use crate::backend::{Backend, BackendBytes, Needs};
use crate::error::Result;
use crate::memory::{GgufFile, MatrixBytes, Resident, SharedBytes, Tier};
use crate::model::census::WeightMatrix;
use crate::model::decoder::Decoder;
use crate::model::part::Parts;
use crate::model::stage::Stage;
use crate::model::weights::{self, MatrixRole, WeightSource};
use crate::model::{Capacity, ModelConfig};
use crate::plan::{COPIES, MatrixPlan, MemoryPlan};

/// See [`Needs::slot_bytes`].
pub(super) fn slot_bytes<'a>(matrices: impl Iterator<Item = &'a WeightMatrix>) -> [usize; 2] {
    matrices.fold([0; 2], |[row, all], matrix| {
        [row.max(matrix.row_bytes() as usize), all.max(matrix.bytes as usize)]
    })
}

/// A backend whose type does not matter any more.
pub(super) trait Place: Send {
    /// See [`Backend::description`].
    fn description(&self) -> String;
    /// See [`Backend::memory`].
    fn memory(&self) -> Option<&Tier>;
    /// See [`Backend::check`].
    fn check(&self, needs: &Needs<'_>, types: &[GgmlType]) -> Result<()>;
    /// See [`Backend::bytes`].
    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes;
    /// Loads its parts of a model, all of them into its memory.
    fn load(self: Box<Self>, load: StageLoad<'_>) -> Result<Box<dyn Stage>>;
}

impl<B: Backend + 'static> Place for B {
    fn description(&self) -> String {
        Backend::description(self)
    }

    fn memory(&self) -> Option<&Tier> {
        Backend::memory(self)
    }

    fn check(&self, needs: &Needs<'_>, types: &[GgmlType]) -> Result<()> {
        Backend::check(self, needs, types)
    }

    fn bytes(&self, needs: &Needs<'_>) -> BackendBytes {
        Backend::bytes(self, needs)
    }

    fn load(mut self: Box<Self>, load: StageLoad<'_>) -> Result<Box<dyn Stage>> {
        self.charge_to(load.ram);
        load.load(*self, Resident::default(), false)
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
}

impl StageLoad<'_> {
    /// Onto a backend, with what has been read into memory already; other matrices are used in the file's map, or are
    /// `streamed`.
    pub(super) fn load<B: Backend + 'static>(
        self,
        mut backend: B,
        resident: Resident,
        streamed: bool,
    ) -> Result<Box<dyn Stage>> {
        let n_resident = self.swapped();
        if !n_resident.is_empty() {
            let of_device = self.plan.matrices.iter().filter(|matrix| matrix.device == self.device);
            backend.reserve_slots(slot_bytes(of_device.map(|matrix| &matrix.weights)))?;
        }
        let Self { file, config, parts, capacity, ram, .. } = self;
        let mut load = Load { backend, file, resident, streamed, n_resident, ram };
        let weights = weights::build(&file.gguf(), config, &parts, &mut load)?;
        Ok(Box::new(Decoder::new(load.backend, config.clone(), parts, weights, capacity, ram)?))
    }

    /// Of matrices that are swapped in to the device, how many rows stay there.
    fn swapped(&self) -> HashMap<String, usize> {
        let of_device =
            self.plan.matrices.iter().filter(|matrix| self.device.is_some() && matrix.device == self.device);
        let swapped = of_device.filter(|matrix| matrix.resident_bytes() < matrix.weights.bytes);
        let n_rows = |matrix: &MatrixPlan| matrix.resident_bytes() / matrix.weights.row_bytes();
        swapped.map(|matrix| (matrix.weights.name.clone(), n_rows(matrix) as usize)).collect()
    }
}

/// The second pass: every tensor to the backend.
struct Load<'a, B> {
    backend: B,
    file: &'a GgufFile,
    /// Where some matrices have been read to, one perhaps in part.
    resident: Resident,
    /// Whether the others stay in the file, instead of being used in its map.
    streamed: bool,
    /// Of matrices that are swapped in to a device, how many rows stay there.
    n_resident: HashMap<String, usize>,
    ram: &'a Tier,
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
        if self.streamed {
            let memory = self.resident.get(tensor.name());
            let rest = GgufFile::range(&tensor)?.after(memory.as_ref().map_or(0, |bytes| bytes.len()));
            data.bytes = MatrixBytes { memory, file: (rest.n_bytes > 0).then_some(rest) };
        }
        match self.n_resident.get(tensor.name()) {
            Some(n_resident) => self.backend.matrix_swapped(data, *n_resident),
            None if self.backend.memory().is_some() => {
                let matrix = self.backend.matrix(data)?;
                self.file.has_copied(GgufFile::range(&tensor)?);
                Ok(matrix)
            }
            None => self.backend.matrix(data),
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
