//! What each stage of a model needs, and which parts a device computes.

use metallic_gguf::ByteOrder;

use super::stages::swap_needs;
use super::{GgufLoader, Other, Takes};
use crate::backend::{Cpu, Needs};
use crate::error::{Error, Result};
use crate::memory::Tier;
use crate::model::census::Census;
use crate::model::part::{EMBEDDING, Parts, n_parts};
use crate::model::route::Routes;
use crate::model::{Capacity, ModelConfig, cache};
use crate::plan::{
    DeviceNeeds, FileBytes, MemoryPlan, Offload, PlanRequest, StageNeeds, WeightBytes, offload,
};

impl GgufLoader<'_> {
    /// The plan for one way of using the model.
    pub(super) fn plan_for(
        &self,
        config: &ModelConfig,
        files: FileBytes,
        request: PlanRequest,
        routes: &Routes,
    ) -> Result<MemoryPlan> {
        let stages = self.needs(config, request.capacity, routes)?;
        MemoryPlan::new(config, &stages, routes.clone(), files, request)
    }

    /// What each stage needs, the CPU's first.
    fn needs(&self, config: &ModelConfig, capacity: Capacity, routes: &Routes) -> Result<Vec<StageNeeds>> {
        let Capacity { n_batch, n_ctx, kv_type, .. } = capacity;
        let gguf = self.file.gguf();
        let needs = |stage: usize| {
            let parts = routes.parts(stage);
            let own = Census::of(&gguf, config, &Parts::of_stage(routes.usual(), stage))?;
            let lent = Census::of(&gguf, config, &routes.lent_to(stage))?;
            let vectors = own.vector_bytes + lent.vector_bytes;
            let weights = WeightBytes { matrices: own.matrices, copied: own.copied, vectors };
            let attention = cache::layouts(&cache::sizes(config, &parts, kv_type)?);
            let needs = Needs {
                n_rows: n_batch,
                row_len: config.max_input_width(&parts),
                attention: &attention,
                n_positions: n_ctx,
                n_pages: capacity.n_pages()?,
                ropes: &config.distinct_ropes(&parts),
                experts: config.expert_needs(&parts),
                swapped: swap_needs(weights.matrices.iter().chain(&lent.matrices)),
            };
            let Some(other) = stage.checked_sub(1) else {
                let backend = Cpu::bytes_with(self.n_threads, self.isa, &needs);
                return Ok(StageNeeds { parts, weights, backend, device: None });
            };
            let Other { backend: place, takes } = &self.others[other];
            let matrices = weights.matrices.iter().chain(&weights.copied).chain(&lent.matrices);
            let mut types: Vec<_> = matrices.map(|matrix| matrix.ggml_type).collect();
            types.dedup();
            place.check(&needs, &types)?;
            let device = place.memory().map(|memory| DeviceNeeds {
                number: other,
                description: place.description(),
                budget_bytes: memory.limit_bytes(),
                may_swap: matches!(takes, Takes::Fitting(Offload { swaps: true, .. })),
                lent: lent.matrices.iter().map(|matrix| matrix.name.clone()).collect(),
            });
            Ok(StageNeeds { backend: place.bytes(&needs), parts, weights, device })
        };
        (0..=self.others.len()).map(needs).collect()
    }

    /// A way through the stages, of which long prompts leave the networks that the CPU has to the last device, if so many tokens
    /// are given and that device is among these. What is copied because it has the other byte order is not there to be lent.
    fn routes(&self, config: &ModelConfig, stage_of: Vec<usize>, n_devices: usize) -> Routes {
        let one = Routes::one(stage_of);
        let is_last = n_devices > 0 && n_devices == self.others.len();
        match self.long_prompts_from {
            Some(from) if is_last && self.file.gguf().byte_order() == ByteOrder::Little => {
                one.with_networks_lent(config, from, n_devices)
            }
            _ => one,
        }
    }

    /// The stage of each part: 0 is the CPU, and the others come after it.
    pub(super) fn choose_stages(
        &self,
        config: &ModelConfig,
        files: FileBytes,
        request: PlanRequest,
    ) -> Result<Routes> {
        let request = PlanRequest { ram_bytes: None, in_slab: false, ..request };
        let mut stage_of = vec![0; n_parts(config.layers.len())];
        for (device, Other { backend, takes }) in self.others.iter().enumerate() {
            match takes {
                Takes::These(takes) => {
                    let parts = stage_of.iter_mut().enumerate().filter(|(part, _)| takes(*part));
                    parts.for_each(|(_, stage)| *stage = device + 1);
                }
                Takes::Fitting(offload) => {
                    let budget = backend.memory().map_or(u64::MAX, Tier::limit_bytes);
                    stage_of = self.fit(config, files, request, &stage_of, (device, budget, *offload))?;
                }
            }
        }
        Ok(self.routes(config, stage_of, self.others.len()))
    }

    /// The same after a device has taken, of the parts that the CPU has, those that its memory has room for: so many that
    /// the CPU reads the fewest bytes for a token. Those that were asked for by number it takes all, and swaps in what has
    /// no room; but not the embedding, of which the CPU reads a row.
    fn fit(
        &self,
        config: &ModelConfig,
        files: FileBytes,
        request: PlanRequest,
        stage_of: &[usize],
        (device, budget, offload): (usize, u64, Offload),
    ) -> Result<Vec<usize>> {
        let taking = |parts: &[usize]| {
            let mut stage_of = stage_of.to_vec();
            parts.iter().for_each(|part| stage_of[*part] = device + 1);
            stage_of
        };
        let routes = |stage_of: Vec<usize>| self.routes(config, stage_of, device + 1);
        let plan = |parts: &[usize]| self.plan_for(config, files, request, &routes(taking(parts)));
        let bytes = |parts: &[usize]| -> Result<u64> { Ok(plan(parts)?.device_bytes(device)) };
        let (mut best, mut floor) = (None, u64::MAX);
        for mut order in offload::orders(config, stage_of, offload) {
            if offload.swaps && order.last() == Some(&EMBEDDING) {
                let all = plan(&order)?;
                if all.device_bytes(device) > budget || all.swapped_bytes() > 0 {
                    order.pop();
                }
            }
            let least = if offload.swaps { order.len() } else { 1 };
            if order.is_empty() {
                continue;
            }
            let needed = bytes(&order[..least])?;
            floor = floor.min(needed);
            if needed > budget {
                continue;
            }
            let (mut fits, mut too_many) = (least, order.len() + 1);
            while too_many - fits > 1 {
                let n = fits.midpoint(too_many);
                if bytes(&order[..n])? <= budget { fits = n } else { too_many = n }
            }
            let chosen = taking(&order[..fits]);
            let needs = self.needs(config, request.capacity, &Routes::one(chosen.clone()))?;
            let left = offload::bytes_of_a_token(&needs[0]);
            if best.as_ref().is_none_or(|(least, _)| left < *least) {
                best = Some((left, chosen));
            }
        }
        let Capacity { n_ctx, n_batch, kv_type, .. } = request.capacity;
        match best {
            Some((_, chosen)) => Ok(chosen),
            None if floor == u64::MAX => Ok(stage_of.to_vec()),
            None => Err(Error::DeviceTooSmall {
                budget_bytes: budget,
                floor_bytes: floor,
                all: offload.swaps,
                n_ctx,
                n_batch,
                kv_type,
            }),
        }
    }
}
