//! What each stage of a model needs, and which parts a device computes.

use metallic_gguf::ByteOrder;

use super::stages::swap_needs;
use super::{GgufLoader, Other, Takes};
use crate::backend::{Cpu, Needs};
use crate::error::{Error, Result};
use crate::memory::Tier;
use crate::model::census::Census;
use crate::model::part::{EMBEDDING, Part, Parts, n_parts};
use crate::model::route::Routes;
use crate::model::{Capacity, ModelConfig, cache};
use crate::plan::{
    DeviceNeeds, FileBytes, MemoryPlan, Offload, PlanRequest, StageNeeds, WeightBytes, offload,
};

/// What plans of a loader are made for.
#[derive(Clone, Copy)]
pub(super) struct Planning<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) files: FileBytes,
    pub(super) request: PlanRequest,
}

/// Costs that differ by less than this share are the same, summed up in another order.
const ROUNDING: f64 = 1e-9;

/// Which stage computes each part, and of which device's weights those are swapped in that it has no room for.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) routes: Routes,
    pub(super) swapper: Option<usize>,
}

impl Planning<'_> {
    /// The plan for one way.
    pub(super) fn plan(&self, loader: &GgufLoader<'_>, way: &Way) -> Result<MemoryPlan> {
        let stages = loader.needs(self.config, self.request.capacity, way)?;
        MemoryPlan::new(self.config, &stages, way.routes.clone(), self.files, self.request)
    }

    /// The same without a budget for main memory.
    pub(super) fn with_all_in_memory(&self, loader: &GgufLoader<'_>, way: &Way) -> Result<MemoryPlan> {
        let request = PlanRequest { ram_bytes: None, in_slab: false, ..self.request };
        Self { request, ..*self }.plan(loader, way)
    }

    /// Keeps a way if it is better than the best so far: by the seconds that a prompt and an answer take, where the loader
    /// knows rates, else by the bytes that the CPU reads for a token.
    fn keep_better(&self, loader: &GgufLoader<'_>, way: Way, best: &mut Option<(f64, Way)>) -> Result<()> {
        let cost = match &loader.rates {
            Some(rates) => match self.plan(loader, &way) {
                Ok(plan) => plan.predict_seconds(rates),
                // It may still be the only one.
                Err(Error::BudgetTooSmall { .. }) => f64::INFINITY,
                Err(error) => return Err(error),
            },
            None => {
                let usual = Way { routes: Routes::one(way.routes.usual().to_vec()), ..way };
                offload::bytes_of_a_token(&loader.needs(self.config, self.request.capacity, &usual)?[0])
            }
        };
        if best.as_ref().is_none_or(|(least, _)| cost < *least * (1.0 - ROUNDING)) {
            *best = Some((cost, way));
        }
        Ok(())
    }
}

impl GgufLoader<'_> {
    /// What each stage needs, the CPU's first.
    fn needs(&self, config: &ModelConfig, capacity: Capacity, way: &Way) -> Result<Vec<StageNeeds>> {
        let Way { routes, swapper } = way;
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
            let place = &self.others[other].backend;
            let matrices = weights.matrices.iter().chain(&weights.copied).chain(&lent.matrices);
            let mut types: Vec<_> = matrices.map(|matrix| matrix.ggml_type).collect();
            types.dedup();
            place.check(&needs, &types)?;
            let device = place.memory().map(|memory| DeviceNeeds {
                number: other,
                description: place.description(),
                budget_bytes: memory.limit_bytes(),
                shares_main_memory: place.shares_main_memory(),
                may_swap: *swapper == Some(other),
                lent: lent.matrices.iter().map(|matrix| matrix.name.clone()).collect(),
            });
            Ok(StageNeeds { backend: place.bytes(&needs), parts, weights, device })
        };
        (0..=self.others.len()).map(needs).collect()
    }

    /// A way through the stages. Long prompts leave the networks that the CPU has to the `lender`, if so many tokens are given.
    /// What is copied because it has the other byte order is not there to be lent.
    fn routes(&self, config: &ModelConfig, stage_of: Vec<usize>, lender: Option<usize>) -> Routes {
        let one = Routes::one(stage_of);
        match (self.long_prompts_from, lender) {
            (Some(from), Some(device)) if self.file.gguf().byte_order() == ByteOrder::Little => {
                one.with_networks_lent(config, from, device + 1)
            }
            _ => one,
        }
    }

    /// Which stage computes what: 0 is the CPU, and the others come after it. Devices take parts one after the other, the last of
    /// them may be lent networks: in the order in which the loader was given them or, where it knows rates, in that which is
    /// predicted to be fastest. Then the last may also have all that is left swapped in, if that is faster than the CPU.
    pub(super) fn choose(&self, planning: &Planning<'_>) -> Result<Way> {
        let is_open = |other: &Other| matches!(other.takes, Takes::Fitting(Offload { swaps: false, .. }));
        let is_open = self.rates.is_some() && self.others.iter().all(is_open);
        let orders = if is_open { self.orders() } else { vec![(0..self.others.len()).collect()] };
        let swapping: &[bool] = if is_open { &[false, true] } else { &[false] };
        let (mut best, mut refused) = (None, None);
        for order in &orders {
            for &swaps in swapping {
                match self.choose_in_turn(planning, order, swaps) {
                    Ok(way) => planning.keep_better(self, way, &mut best)?,
                    Err(error @ (Error::DeviceTooSmall { .. } | Error::BudgetTooSmall { .. })) => {
                        refused = refused.or(Some(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        match (best, refused) {
            (Some((_, way)), _) => Ok(way),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("there is an order, if of no devices"),
        }
    }

    /// Orders in which devices may take parts, first the one in which they were given: all, but for those of devices that are the
    /// same; of many devices only that from the fastest to the slowest.
    fn orders(&self) -> Vec<Vec<usize>> {
        let rates = |device: usize| self.rates.as_ref().and_then(|rates| rates.devices.get(device));
        let n_devices = self.others.len();
        if n_devices > MAX_ORDERED {
            let given: Vec<usize> = (0..n_devices).collect();
            let speed = |device: &usize| rates(*device).map_or(0.0, |rates| rates.memory_bytes);
            let mut by_speed = given.clone();
            by_speed.sort_by(|a, b| speed(b).total_cmp(&speed(a)));
            return vec![given, by_speed];
        }
        let budget = |device: usize| self.others[device].backend.memory().map(Tier::limit_bytes);
        let same = |a: usize, b: usize| rates(a) == rates(b) && budget(a) == budget(b);
        let turned = |before: &[usize], device: usize| before.iter().any(|b| *b > device && same(*b, device));
        let mut orders = permutations(n_devices);
        orders.retain(|order| !order.iter().enumerate().any(|(i, device)| turned(&order[..i], *device)));
        orders
    }

    /// The same with devices in this order, of which the last swaps in the rest if it is told to, or was when it was given.
    fn choose_in_turn(&self, planning: &Planning<'_>, order: &[usize], swaps: bool) -> Result<Way> {
        let config = planning.config;
        let mut stage_of = vec![0; n_parts(config.layers.len())];
        let (last, mut swapper) = (order.last().copied(), None);
        for device in order.iter().copied() {
            let Other { backend, takes } = &self.others[device];
            let is_last = last == Some(device);
            match takes {
                Takes::These(takes) => {
                    let parts = stage_of.iter_mut().enumerate().filter(|(part, _)| takes(*part));
                    parts.for_each(|(_, stage)| *stage = device + 1);
                }
                Takes::Fitting(offload) => {
                    let offload = Offload { swaps: offload.swaps || (swaps && is_last), ..*offload };
                    swapper = if offload.swaps { Some(device) } else { swapper };
                    let budget = backend.memory().map_or(u64::MAX, Tier::limit_bytes);
                    let taker = Taker { device, budget, offload, lends: is_last };
                    stage_of = self.fit(planning, &stage_of, &taker)?;
                }
            }
        }
        Ok(Way { routes: self.routes(config, stage_of, last), swapper })
    }

    /// The same after a device has taken, of the parts that the CPU has, those that its memory has room for: of several ways
    /// the best. Those that were asked for by number it takes all, and swaps in what has no room; but not the embedding, of
    /// which the CPU reads a row.
    fn fit(&self, planning: &Planning<'_>, stage_of: &[usize], taker: &Taker) -> Result<Vec<usize>> {
        let Taker { device, budget, offload, lends } = *taker;
        let config = planning.config;
        let way = |parts: &[usize]| {
            let mut stage_of = stage_of.to_vec();
            parts.iter().for_each(|part| stage_of[*part] = device + 1);
            let routes = self.routes(config, stage_of, lends.then_some(device));
            Way { routes, swapper: offload.swaps.then_some(device) }
        };
        let plan = |parts: &[usize]| planning.with_all_in_memory(self, &way(parts));
        let bytes = |parts: &[usize]| -> Result<u64> { Ok(plan(parts)?.device_bytes(device)) };
        // What a device takes of main memory must leave room there for the rest.
        let shares = self.others[device].backend.shares_main_memory() && planning.request.ram_bytes.is_some();
        let has_room = |parts: &[usize]| -> Result<bool> {
            Ok(bytes(parts)? <= budget && (!shares || has_room(planning.plan(self, &way(parts)))?))
        };
        let lends = lends && self.long_prompts_from.is_some();
        let is_empty = |part: &usize| match Part::of(*part, config.layers.len()) {
            Part::Network(layer) => config.layers[layer].ffn.is_none(),
            Part::Embedding | Part::Mixer(_) | Part::Head => false,
        };
        let (mut best, mut floor, mut refused) = (None, u64::MAX, None);
        for mut order in offload::orders(config, stage_of, offload) {
            if offload.swaps && order.last() == Some(&EMBEDDING) {
                let all = plan(&order)?;
                if all.device_bytes(device) > budget || all.swapped_bytes() > 0 {
                    order.pop();
                }
            }
            if order.iter().all(is_empty) {
                continue;
            }
            let least = match (offload.swaps, lends) {
                (true, _) => order.len(),
                // What is lent alone may be worth it.
                (false, true) => 0,
                (false, false) => order.iter().take_while(|part| is_empty(part)).count() + 1,
            };
            let needed = bytes(&order[..least])?;
            floor = floor.min(needed);
            if let Some(n) = most(&order, least, has_room)? {
                planning.keep_better(self, way(&order[..n]), &mut best)?;
            } else if needed <= budget {
                for parts in [&order[..least], &order] {
                    refused = smaller_floor(refused, planning.plan(self, &way(parts)).err());
                }
            }
        }
        let Capacity { n_ctx, n_batch, kv_type, .. } = planning.request.capacity;
        match (best, refused) {
            (Some((_, way)), _) => Ok(way.routes.usual().to_vec()),
            (None, Some(error)) => Err(error),
            (None, None) if floor == u64::MAX => Ok(stage_of.to_vec()),
            (None, None) => Err(Error::DeviceTooSmall {
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

/// A device whose turn it is to take parts.
struct Taker {
    device: usize,
    /// Bytes of its memory that may be taken.
    budget: u64,
    offload: Offload,
    /// Whether networks may be lent to it.
    lends: bool,
}

/// How many of these parts there is room for, from the first on and at least so many; `None` if for fewer.
fn most(parts: &[usize], least: usize, has_room: impl Fn(&[usize]) -> Result<bool>) -> Result<Option<usize>> {
    // All may take less than some, which need buffers of the CPU as well.
    if has_room(parts)? {
        return Ok(Some(parts.len()));
    }
    if !has_room(&parts[..least])? {
        return Ok(None);
    }
    let (mut fits, mut too_many) = (least, parts.len());
    while too_many - fits > 1 {
        let n = fits.midpoint(too_many);
        if has_room(&parts[..n])? { fits = n } else { too_many = n }
    }
    Ok(Some(fits))
}

/// Of two errors that may be, that of the budget which asks for less.
fn smaller_floor(a: Option<Error>, b: Option<Error>) -> Option<Error> {
    let floor = |error: &Error| match error {
        Error::BudgetTooSmall { floor_bytes, .. } => *floor_bytes,
        _ => u64::MAX,
    };
    a.into_iter().chain(b).min_by_key(floor)
}

/// Whether there is a plan within the budget of main memory.
fn has_room(plan: Result<MemoryPlan>) -> Result<bool> {
    match plan {
        Err(Error::BudgetTooSmall { .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

/// Of so many devices all orders are tried: of more there are too many.
const MAX_ORDERED: usize = 3;

/// All orders of the numbers below `n`, first the natural one.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    (0..n).fold(vec![Vec::new()], |orders, next| {
        let with_next = |order: &Vec<usize>| {
            let places = (0..=order.len()).rev();
            let orders = places.map(|place| [&order[..place], &[next], &order[place..]].concat());
            orders.collect::<Vec<_>>()
        };
        orders.iter().flat_map(with_next).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::permutations;

    #[test]
    fn permutations_are_all_orders_once_and_begin_with_the_natural_one() {
        assert_eq!(permutations(0), [[0; 0]]);
        assert_eq!(permutations(2), [[0, 1], [1, 0]]);
        let mut all = permutations(4);
        assert_eq!(all[0], [0, 1, 2, 3]);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24);
    }
}
