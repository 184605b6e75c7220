// Causal attention over pages of keys and values, a query head of a row by a workgroup: simple, and right.
//
// An online softmax (Milakov and Gimelshein 2018) in steps of 64 positions, which begin at multiples of 64 whatever the row:
// so the order of a row's sums depends on its position alone. Keys that the row does not see are not read.

// Positions in a step, and invocations of a workgroup.
const STEP: u32 = 64u;

// Values of a head at most, see `MAX_HEAD_LEN`.
const MAX_LEN: u32 = 1024u;

// Below every score, and a float whose difference to any is one too.
const NO_SCORE: f32 = -1e30;

struct Params {
    n_groups: u32,
    first_row: u32,
    // Position of that row.
    start: u32,
    n_head: u32,
    n_head_kv: u32,
    // Numbers of a head of a key and of a value, words that they are kept in, and those of a head in a page.
    key_len: u32,
    value_len: u32,
    key_words: u32,
    value_words: u32,
    key_head_words: u32,
    value_head_words: u32,
    page_len: u32,
    pages_at: u32,
    // Positions that a row sees; 0 for all.
    window: u32,
    scale: f32,
    // Bounds of scores; 0 for none.
    softcap: f32,
    // The logarithm of the least slope to the base of one half; 0 for none.
    alibi: f32,
    has_sinks: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<u32>;
@group(0) @binding(4) var<storage, read> sinks: array<f32>;
@group(0) @binding(5) var<storage, read> notes: array<u32>;

var<workgroup> query: array<f32, MAX_LEN>;
var<workgroup> sums: array<f32, MAX_LEN>;
var<workgroup> scores: array<f32, STEP>;
var<workgroup> weights: array<f32, STEP>;

// By how much scores fall with each position of distance: powers of two for as many heads as a power of two, and those
// halfway between them for the rest.
fn slope(head: u32) -> f32 {
    if params.alibi == 0.0 {
        return 0.0;
    }
    let even = 1u << firstLeadingBit(params.n_head);
    var place = f32(head + 1u);
    if head >= even {
        place = 0.5 * f32(2u * (head - even) + 1u);
    }
    return exp2(-params.alibi * place / f32(even));
}

// The score of the key at a place of a page, where the words of the head begin at `first`.
fn score(first: u32, place: u32) -> f32 {
    let first_word = first + place * params.key_words;
    var scale = 1.0;
    var sum = 0.0;
    for (var i = 0u; i < params.key_words; i += 1u) {
        if HAS_SCALES && i % BLOCK_WORDS == 0u {
            let at = scale_at(params.page_len, params.key_words, i / BLOCK_WORDS, place);
            scale = scale_in(keys[first + at], place);
        }
        let key = unpack(keys[first_word + i]);
        for (var j = 0u; j < IN_WORD; j += 1u) {
            sum += query[i * IN_WORD + j] * (scale * key[j]);
        }
    }
    if params.softcap != 0.0 {
        sum = params.softcap * bounded_tanh(sum / params.softcap);
    }
    return sum;
}

// A number of the value at a place of a page, likewise.
fn value(first: u32, place: u32, column: u32) -> f32 {
    let word = values[first + place * params.value_words + column / IN_WORD];
    let number = unpack(word)[column % IN_WORD];
    if !HAS_SCALES {
        return number;
    }
    let at = scale_at(params.page_len, params.value_words, column / BLOCK_LEN, place);
    return scale_in(values[first + at], place) * number;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = group_number(id, groups);
    if group >= params.n_groups {
        return;
    }
    let head = group % params.n_head;
    let row = group / params.n_head;
    let position = params.start + row;
    let head_kv = head / (params.n_head / params.n_head_kv);
    let first_query = ((params.first_row + row) * params.n_head + head) * params.key_len;
    // What blocks are filled up with counts nothing.
    for (var i = local; i < params.key_words * IN_WORD; i += STEP) {
        query[i] = 0.0;
        if i < params.key_len {
            query[i] = params.scale * queries[first_query + i];
        }
    }
    for (var i = local; i < params.value_len; i += STEP) {
        sums[i] = 0.0;
    }
    workgroupBarrier();

    var first_seen = 0u;
    if params.window != 0u && position >= params.window {
        first_seen = position + 1u - params.window;
    }
    let fall = slope(head);
    var largest = NO_SCORE;
    var sum = 0.0;
    for (var step = first_seen / STEP * STEP; step <= position; step += STEP) {
        // A page has whole steps.
        let page = notes[params.pages_at + step / params.page_len];
        let slot = page * params.n_head_kv + head_kv;
        let first_key = slot * params.key_head_words;
        let first_value = slot * params.value_head_words;
        let place = step % params.page_len;
        let first = max(first_seen, step) - step;
        let end = min(position + 1u, step + STEP) - step;
        scores[local] = NO_SCORE;
        if local >= first && local < end {
            let distance = f32(position - step - local);
            scores[local] = score(first_key, place + local) - fall * distance;
        }
        workgroupBarrier();
        let before = largest;
        for (var i = first; i < end; i += 1u) {
            largest = max(largest, scores[i]);
        }
        weights[local] = exponential(scores[local] - largest);
        workgroupBarrier();
        let factor = exponential(before - largest);
        sum *= factor;
        for (var i = first; i < end; i += 1u) {
            sum += weights[i];
        }
        for (var column = local; column < params.value_len; column += STEP) {
            var total = factor * sums[column];
            for (var i = first; i < end; i += 1u) {
                total += weights[i] * value(first_value, place + i, column);
            }
            sums[column] = total;
        }
        workgroupBarrier();
    }

    var factor = 1.0;
    if params.has_sinks == 1u {
        let sink = sinks[head];
        let before = largest;
        largest = max(largest, sink);
        factor = exponential(before - largest);
        sum = sum * factor + exponential(sink - largest);
    }
    let first_out = ((params.first_row + row) * params.n_head + head) * params.value_len;
    for (var column = local; column < params.value_len; column += STEP) {
        out[first_out + column] = factor * sums[column] / sum;
    }
}
