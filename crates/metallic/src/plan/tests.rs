//! What holds of every plan, whatever the model and the budget.

use metallic_gguf::{GgmlType, Gguf};
use proptest::prelude::*;

use super::*;
use crate::backend::KvType;
use crate::memory::BLOCK_BYTES;
use crate::model::part::n_parts;
use crate::testing::tiny_model;

/// Bytes.
const LONGEST_ROW: usize = 3000;

/// A model's matrices: the token embedding, layers with or without experts, and a head, of any size.
fn weights() -> impl Strategy<Value = WeightBytes> {
    let matrix = (1..2000_u64, 1..LONGEST_ROW as u64);
    let layers = prop::collection::vec((matrix.clone(), any::<bool>()), 1..40);
    (layers, matrix.clone(), matrix, 0..1_u64 << 24).prop_map(|(layers, embedding, head, vectors)| {
        let of = |role, usage, (n_rows, row_bytes): (u64, u64)| {
            let (name, bytes) = (format!("{role:?}"), n_rows * row_bytes);
            WeightMatrix { name, role, ggml_type: GgmlType::F32, bytes, n_weights: bytes, n_rows, usage }
        };
        let mut matrices = vec![of(MatrixRole::Embedding, Usage::Row, embedding)];
        matrices.extend(layers.into_iter().enumerate().map(|(layer, (size, experts))| {
            if experts {
                of(MatrixRole::Experts(layer), Usage::Experts { n_used: 1, n_expert: 1 }, size)
            } else {
                of(MatrixRole::Layer(layer), Usage::Whole, size)
            }
        }));
        matrices.push(of(MatrixRole::Head, Usage::Logits, head));
        WeightBytes { matrices, copied: Vec::new(), vectors }
    })
}

fn request() -> impl Strategy<Value = PlanRequest> {
    let kv_types = prop::sample::select(KvType::ALL.to_vec());
    let chunk_bytes = prop::option::of(1..1_usize << 20);
    (1..2000_usize, 1..3_usize, 1..600_usize, kv_types, 1..20_usize, chunk_bytes, any::<bool>()).prop_map(
        |(n_ctx, n_sequences, n_batch, kv_type, n_slots, chunk_bytes, in_slab)| PlanRequest {
            capacity: Capacity { n_ctx, n_sequences, n_batch, kv_type },
            ram_bytes: None,
            n_slots,
            chunk_bytes,
            in_slab,
            guesses: in_slab,
        },
    )
}

fn config() -> ModelConfig {
    let bytes = tiny_model().unwrap();
    crate::model::read_config(&Gguf::parse(&bytes).unwrap()).unwrap()
}

const FILES: FileBytes = FileBytes { all: 0, metadata: 1000, tokenizer: 1 << 20 };

fn plan(config: &ModelConfig, weights: &WeightBytes, request: PlanRequest, ram: u64) -> Result<MemoryPlan> {
    let backend = BackendBytes {
        inputs: 1000,
        attention: 2000,
        experts: 0,
        rotations: 3000,
        stacks: 4000,
        kernel: 5000,
        slots: 0,
        copies: 0,
    };
    let parts = Parts::all(config.layers.len());
    let stages = [StageNeeds { parts, weights: weights.clone(), backend, device: None }];
    let all = 1000 + weights.matrices.iter().map(|matrix| matrix.bytes).sum::<u64>();
    let request = PlanRequest { ram_bytes: Some(ram), ..request };
    MemoryPlan::new(
        config,
        &stages,
        Routes::one(vec![0; n_parts(config.layers.len())]),
        FileBytes { all, ..FILES },
        request,
    )
}

/// The least budget, as the error for none at all says.
fn floor(config: &ModelConfig, weights: &WeightBytes, request: PlanRequest) -> u64 {
    match plan(config, weights, request, 0) {
        Err(Error::BudgetTooSmall { floor_bytes, budget_bytes: 0, n_ctx, n_batch, kv_type }) => {
            assert_eq!(
                (n_ctx, n_batch, kv_type),
                (request.capacity.n_ctx, request.capacity.n_batch, request.capacity.kv_type)
            );
            floor_bytes
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn the_ledger_is_within_the_budget_and_more_of_it_is_never_worse(
        weights in weights(), request in request(), steps in prop::collection::vec(0.0..1.0_f64, 10),
    ) {
        let config = config();
        let floor = floor(&config, &weights, request);
        let most = plan(&config, &weights, request, u64::MAX).unwrap().total_bytes();
        let span = (most + (1 << 20)).saturating_sub(floor) as f64;
        let mut budgets: Vec<u64> = steps.iter().map(|step| floor + (step * span) as u64).collect();
        // Neighbours, too: the sizes of slots go in steps.
        budgets.extend(budgets.clone().iter().flat_map(|budget| [budget + 1, budget + 4096]));
        budgets.sort_unstable();
        let mut before: Option<MemoryPlan> = None;
        for budget in budgets {
            let plan = plan(&config, &weights, request, budget).unwrap();
            prop_assert!(plan.total_bytes() <= budget);
            let resident = |plan: &MemoryPlan| -> Vec<u64> {
                plan.matrices.iter().map(MatrixPlan::resident_bytes).collect()
            };
            if let Some(before) = before {
                let kept = resident(&before).into_iter().zip(resident(&plan)).all(|(was, is)| is >= was);
                prop_assert!(kept, "{budget} bytes keep less than {:?}", before.request.ram_bytes);
            }
            // Nothing is left over for which there is use, but where slots are smaller than what is set aside for them.
            let waits = |matrix: &MatrixPlan| {
                matrix.streamed_bytes() > 0 && !matches!(matrix.weights.usage, Usage::Experts { .. })
            };
            if request.chunk_bytes.is_some() && plan.matrices.iter().any(waits) {
                let left = budget - plan.total_bytes();
                prop_assert!(left < (LONGEST_ROW + 2 * BLOCK_BYTES) as u64, "{left} of {budget} bytes are left");
            }
            before = Some(plan);
        }
    }

    #[test]
    fn the_floor_is_enough_and_a_byte_less_is_not(weights in weights(), request in request()) {
        let config = config();
        let least = floor(&config, &weights, request);
        prop_assert!(plan(&config, &weights, request, least).unwrap().total_bytes() <= least);
        match plan(&config, &weights, request, least - 1) {
            Err(Error::BudgetTooSmall { floor_bytes, .. }) => prop_assert_eq!(floor_bytes, least),
            other => prop_assert!(false, "{:?}", other),
        }
        // What the error says would lower it does.
        let Capacity { n_ctx, n_batch, kv_type, .. } = request.capacity;
        let lower = [
            Capacity { n_ctx: n_ctx.div_ceil(2), ..request.capacity },
            Capacity { n_batch: n_batch.div_ceil(2), ..request.capacity },
            // Heads of this model are shorter than a block of the other types.
            Capacity { kv_type: if kv_type == KvType::F32 { KvType::F16 } else { kv_type }, ..request.capacity },
        ];
        for capacity in lower {
            let request = PlanRequest { capacity, ..request };
            prop_assert!(floor(&config, &weights, request) <= least);
        }
    }

    #[test]
    fn all_of_a_model_that_fits_stays(weights in weights(), request in request()) {
        let config = config();
        let whole = plan(&config, &weights, request, u64::MAX).unwrap();
        prop_assert_eq!(whole.request.in_slab, request.in_slab);
        let again = plan(&config, &weights, request, whole.total_bytes()).unwrap();
        prop_assert_eq!(&again.ledger, &whole.ledger);
        prop_assert_eq!(again.stream, None);
    }
}
