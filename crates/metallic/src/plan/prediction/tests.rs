//! Predictions of plans that are small enough to be made by hand.

use super::*;
use metallic_gguf::GgmlType;

use crate::backend::KvType;
use crate::model::route::Routes;
use crate::model::weights::MatrixRole;
use crate::model::{Capacity, WeightMatrix};
use crate::plan::{Placement, PlanRequest};

/// Speeds that make a byte or an operation a round number of seconds.
const RATES: Rates = Rates {
    disk_bytes: 10.0,
    memory_bytes: 1000.0,
    prefill_ops: 500.0,
    decode_ops: 100.0,
    together_ops: 200.0,
    devices: Vec::new(),
};

/// With slots for chunks of 100 bytes.
fn plan(matrices: &[(u64, u64, Usage, Placement)], n_slots: usize, prompt: PromptWork) -> MemoryPlan {
    let request = PlanRequest {
        capacity: Capacity { n_ctx: 100, n_sequences: 1, n_batch: 40, kv_type: KvType::F16 },
        ram_bytes: None,
        n_slots,
        chunk_bytes: None,
        in_slab: false,
        guesses: false,
    };
    let matrix = |&(bytes, n_rows, usage, placement): &_| {
        let (name, role) = (String::new(), MatrixRole::Head);
        let ggml_type = GgmlType::Q4_0;
        let weights = WeightMatrix { name, role, ggml_type, bytes, n_weights: 2 * bytes, n_rows, usage };
        MatrixPlan { weights, device: None, n_on_device: 0, lent_to: None, placement, cache: None }
    };
    let matrices = matrices.iter().map(matrix).collect();
    let stream = Some(StreamPlan { n_slots, chunk_bytes: 100, max_row_bytes: 1 });
    MemoryPlan {
        request,
        ledger: Vec::new(),
        matrices,
        stream,
        prompt,
        devices: Vec::new(),
        routes: Routes::one(Vec::new()),
    }
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
}

use Placement::{ByRow, Resident, Streamed};

const DENSE: [(u64, u64, Usage, Placement); 4] = [
    (5000, 7, Usage::Row, ByRow),
    (900, 3, Usage::Whole, Resident),
    (300, 5, Usage::Whole, Streamed),
    (600, 2, Usage::Logits, Resident),
];
const PROMPT: PromptWork = PromptWork { n_tokens: 100, attention: 1000 };

#[test]
fn a_token_waits_for_what_no_slot_was_free_for() {
    // 1800 bytes at nine tenths of the rate; two weights a byte and two operations a weight. So the matrices
    // take 36, 12 and 24 seconds to compute, and the second comes in three chunks of 10 seconds.
    let decode = plan(&DENSE, 3, PROMPT).predict_decode(&RATES);
    close(decode.disk_s, 30.0);
    close(decode.memory_s, 2.0);
    close(decode.compute_s, 72.0);
    close(decode.seconds, 72.0);
    close(decode.tokens_per_s(), 1.0 / 72.0);
    assert_eq!((decode.n_tokens, decode.bound()), (1, Bound::Compute));

    // Four together at twice the rate take twice as long, and 16 bytes for each of 40 results.
    let mut of_four = plan(&DENSE, 3, PROMPT);
    of_four.request.capacity.n_sequences = 4;
    let together = of_four.predict_together(&RATES);
    close(together.seconds, 144.0 + 0.64);
    close(together.tokens_per_s(), 4.0 / 144.64);
    assert_eq!(of_four.predict_decode(&RATES), decode);
    assert_eq!(plan(&DENSE, 3, PROMPT).predict_together(&RATES), decode);

    // One slot: the first chunk is there in time, the others are read when the one before has been used.
    close(plan(&DENSE, 1, PROMPT).predict_decode(&RATES).seconds, 72.0 + 20.0);
    // Two: the third is begun 4 seconds after the second would be needed, and read while that is used.
    close(plan(&DENSE, 2, PROMPT).predict_decode(&RATES).seconds, 36.0 + 4.0 + 10.0 + 4.0 + 24.0);
}

#[test]
fn the_bound_is_what_takes_longest() {
    let plan = plan(&DENSE, 3, PROMPT);
    let slow = |disk_bytes, memory_bytes| Rates { disk_bytes, memory_bytes, ..RATES };
    assert_eq!(plan.predict_decode(&slow(1.0, 1000.0)).bound(), Bound::Disk);
    assert_eq!(plan.predict_decode(&slow(10.0, 1.0)).bound(), Bound::Memory);
    assert_eq!(plan.predict_prefill(&slow(0.05, 1000.0)).bound(), Bound::Disk);
    // 300 bytes at one a second, and the use of the last chunk, while the slots are not enough to go on reading.
    let decode = plan.predict_decode(&slow(1.0, 1000.0));
    assert!((300.0..300.0 + 72.0).contains(&decode.seconds), "{decode:?}");
}

#[test]
fn a_prompt_by_hand() {
    // Three batches of 40, 40 and 20; the head meets one token. The disk is never waited for.
    let prefill = plan(&DENSE, 3, PROMPT).predict_prefill(&RATES);
    close(prefill.disk_s, 90.0);
    close(prefill.memory_s, (3.0 * 1200.0 + 600.0) / 900.0);
    let multiply_adds = 100.0 * 2400.0 + 1200.0 + ATTENTION_COST * 1000.0;
    let results = 100.0 * 8.0 + 2.0;
    close(prefill.compute_s, multiply_adds / 250.0 + RESULT_BYTES * results / 1000.0);
    close(prefill.seconds, prefill.compute_s);
    close(prefill.tokens_per_s(), 100.0 / prefill.compute_s);
    assert_eq!((prefill.n_tokens, prefill.bound()), (100, Bound::Compute));
}

#[test]
fn of_experts_those_that_tokens_are_sent_to_are_read() {
    let experts = Usage::Experts { n_used: 2, n_expert: 8 };
    let matrices = [(800, 80, experts, Streamed), (100, 1, Usage::Whole, Resident)];
    let mut plan = plan(&matrices, 2, PromptWork { n_tokens: 2, attention: 0 });
    let decode = plan.predict_decode(&RATES);
    close(decode.disk_s, 20.0);
    close(decode.memory_s, 300.0 / 900.0);
    close(decode.compute_s, 2.0 * 2.0 * 300.0 / 100.0);
    // Two tokens miss an expert with a chance of three quarters squared.
    let prefill = plan.predict_prefill(&RATES);
    close(prefill.disk_s, 800.0 * (1.0 - 9.0 / 16.0) / 10.0);
    close(prefill.compute_s, 2.0 * 2.0 * 2.0 * 300.0 / 500.0 + RESULT_BYTES * 2.0 * 21.0 / 1000.0);
    // With places for six of eight, a quarter is read.
    plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 6 });
    let cached = plan.predict_decode(&RATES);
    close(cached.disk_s, 5.0);
    close(cached.compute_s, decode.compute_s);
    // Half an expert is copied on average, to one of six places.
    close(cached.memory_s, decode.memory_s + 3.0 * 50.0 / 1000.0);
    // With places for one of the two that are wanted, at best.
    assert_eq!(plan.predict_best_decode(&RATES).unwrap().disk_s, 0.0);
    plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 1 });
    close(plan.predict_decode(&RATES).disk_s, 20.0 * 7.0 / 8.0);
    close(plan.predict_best_decode(&RATES).unwrap().disk_s, 10.0);
    // With places for all nothing is read, and all is computed.
    plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 8 });
    close(plan.predict_decode(&RATES).seconds, decode.compute_s);
}

#[test]
fn experts_are_not_read_before_their_router() {
    let experts = Usage::Experts { n_used: 1, n_expert: 1 };
    let router = (50, 1, Usage::Whole, Resident);
    let layer = [router, (100, 1, experts, Streamed)];
    let matrices = [layer, layer].concat();
    let plan = plan(&matrices, 4, PROMPT);
    assert_eq!(plan.predict_best_decode(&RATES), None);
    // Two seconds for each router, then 10 to read the experts and 4 to compute with them.
    close(plan.predict_decode(&RATES).seconds, 2.0 * (2.0 + 10.0 + 4.0));
}

#[test]
fn of_a_split_matrix_the_rest_is_read() {
    let split = Placement::Split { n_resident: 3 };
    let plan = plan(&[(500, 5, Usage::Whole, split)], 4, PROMPT);
    let decode = plan.predict_decode(&RATES);
    close(decode.disk_s, 20.0);
    close(decode.compute_s, 20.0);
    // Three fifths are computed while the chunk after the next is read.
    close(decode.seconds, 20.0);
}

#[test]
fn a_device_has_its_own_rates_and_what_it_lacks_comes_by_the_link() {
    let matrices = [(900, 9, Usage::Whole, Resident), (400, 4, Usage::Whole, Streamed)];
    let mut plan = plan(&matrices, 4, PromptWork { n_tokens: 40, attention: 0 });
    let device = DeviceRates { link_bytes: 50.0, memory_bytes: 300.0, prefill_ops: 4000.0 };
    let rates = Rates { devices: vec![device], ..RATES };
    // The CPU has neither, and the device has 500 bytes of the first; the others lie in main memory.
    plan.matrices.iter_mut().for_each(|matrix| matrix.device = Some(0));
    plan.matrices[0].n_on_device = 5;
    let decode = plan.predict_decode(&rates);
    close(decode.device_memory_s, 1300.0 / 300.0);
    close(decode.link_s, 800.0 / 50.0);
    close(decode.disk_s, 40.0);
    assert_eq!((decode.memory_s, decode.compute_s, decode.bound()), (0.0, 0.0, Bound::Disk));
    // The disk reads on while the first is brought and used.
    close(decode.seconds, 40.0);

    plan.matrices[1].placement = Resident;
    let decode = plan.predict_decode(&rates);
    close(decode.seconds, 1300.0 / 300.0 + 800.0 / 50.0);
    assert_eq!(decode.bound(), Bound::Link);
    // 40 tokens, two weights a byte, two operations a weight.
    let prefill = plan.predict_prefill(&rates);
    close(prefill.device_compute_s, 40.0 * 1300.0 * 4.0 / 4000.0);
    close(prefill.seconds, prefill.device_compute_s + 16.0);
    assert_eq!(prefill.bound(), Bound::DeviceCompute);
}

#[test]
fn of_several_devices_each_has_its_own_rates() {
    let matrices = [(900, 9, Usage::Whole, Resident), (400, 4, Usage::Whole, Resident)];
    let mut plan = plan(&matrices, 4, PromptWork { n_tokens: 40, attention: 6000 });
    let rates_of = |memory_bytes, prefill_ops| DeviceRates { link_bytes: 50.0, memory_bytes, prefill_ops };
    let rates = Rates { devices: vec![rates_of(300.0, 4000.0), rates_of(200.0, 1000.0)], ..RATES };
    for (i, matrix) in plan.matrices.iter_mut().enumerate() {
        (matrix.device, matrix.n_on_device) = (Some(i), matrix.weights.n_rows);
    }
    close(plan.predict_decode(&rates).seconds, 900.0 / 300.0 + 400.0 / 200.0);
    // Of four layers each has the attention of one, and the CPU of two.
    let device = |number| DevicePlan {
        number,
        description: String::new(),
        budget_bytes: 0,
        shares_main_memory: false,
        n_layers: 4,
        n_mixers: 1,
        n_networks: 0,
        n_lent: 0,
        embedding: false,
        head: false,
    };
    plan.devices = vec![device(0), device(1)];
    let prefill = plan.predict_prefill(&rates);
    let products = 40.0 * 4.0 * (900.0 / 4000.0 + 400.0 / 1000.0);
    let attention = 2.0 * 3.0 * 6000.0;
    close(prefill.device_compute_s, products + attention * (0.25 / 4000.0 + 0.25 / 1000.0));
    close(prefill.compute_s, attention * 0.5 / 500.0);
    close(plan.predict_seconds(&rates), prefill.seconds + 128.0 * 5.0);
}

#[test]
fn of_experts_that_a_device_caches_those_come_that_are_missing() {
    let experts = Usage::Experts { n_used: 2, n_expert: 8 };
    let mut plan = plan(&[(800, 80, experts, Resident)], 2, PromptWork { n_tokens: 2, attention: 0 });
    plan.stream = None;
    let device = DeviceRates { link_bytes: 50.0, memory_bytes: 400.0, prefill_ops: 4000.0 };
    let rates = Rates { devices: vec![device], ..RATES };
    plan.matrices[0].device = Some(0);
    // Without a cache all of them come, whichever are wanted.
    close(plan.predict_decode(&rates).link_s, 800.0 / 50.0);
    plan.matrices[0].cache = Some(ExpertPlaces { n_experts: 8, n_places: 6 });
    let decode = plan.predict_decode(&rates);
    close(decode.link_s, 50.0 / 50.0);
    close(decode.seconds, 200.0 / 400.0 + 1.0);
    close(plan.predict_best_decode(&rates).unwrap().link_s, 0.0);
    // Half of it lies on the disk.
    plan.stream = Some(StreamPlan { n_slots: 2, chunk_bytes: 100, max_row_bytes: 1 });
    plan.matrices[0].placement = Placement::Split { n_resident: 40 };
    close(plan.predict_decode(&rates).disk_s, 25.0 / 10.0);
}

#[test]
fn lending_pays_once_many_tokens_share_what_is_brought() {
    let matrices = [(1000, 10, Usage::Whole, Resident), (1000, 10, Usage::Whole, Resident)];
    let mut plan = plan(&matrices, 1, PromptWork { n_tokens: 100, attention: 0 });
    (plan.stream, plan.request.capacity.n_batch) = (None, 512);
    // A token takes 8 seconds of the CPU and 1 of the device, to which 1000 bytes take so many seconds.
    let rates = |seconds: f64| {
        let device = DeviceRates { link_bytes: 1000.0 / seconds, memory_bytes: 1e9, prefill_ops: 4000.0 };
        Rates { memory_bytes: 1e9, devices: vec![device], ..RATES }
    };
    assert_eq!(plan.lending_pays_from(&rates(1.0)), None, "nothing is lent");
    plan.matrices[0].lent_to = Some(0);
    for (seconds, from) in [(1.0, 32), (7.0 * 32.5, 64), (7.0 * 500.0, 512), (7.0 * 513.0, 0)] {
        assert_eq!(plan.lending_pays_from(&rates(seconds)).unwrap_or(0), from, "{seconds} s");
    }
    plan.request.capacity.n_batch = 31;
    assert_eq!(plan.lending_pays_from(&rates(1.0)), None, "no batch is as long");
}

#[test]
fn what_stays_in_memory_needs_no_disk() {
    let matrices = [(900, 3, Usage::Whole, Resident)];
    let plan = plan(&matrices, 1, PromptWork { n_tokens: 1, attention: 0 });
    let decode = plan.predict_decode(&Rates { disk_bytes: 0.0, ..RATES });
    close(decode.disk_s, 0.0);
    assert_eq!(decode.bound(), Bound::Compute);
}
