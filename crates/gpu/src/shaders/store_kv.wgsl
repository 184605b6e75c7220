// Writes the keys, or the values, of consecutive positions to their pages: an invocation writes a word, `len` in all. A page
// is `[head][position][word]`, and a row of a head whole words.

struct Params {
    len: u32,
    first_row: u32,
    n_rows: u32,
    // Position of the first row.
    start: u32,
    n_heads: u32,
    head_len: u32,
    row_words: u32,
    head_words: u32,
    page_len: u32,
    pages_at: u32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read_write> kept: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> notes: array<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = value_number(id, groups, local);
    if i >= params.len {
        return;
    }
    let at_word = i % params.row_words;
    let head = i / params.row_words % params.n_heads;
    let row = i / params.row_words / params.n_heads;
    let column = at_word * IN_WORD;
    let first = ((params.first_row + row) * params.n_heads + head) * params.head_len + column;
    var values = vec2(x[first], 0.0);
    if IN_WORD == 2u {
        values.y = x[first + 1u];
    }
    let position = params.start + row;
    let page = notes[params.pages_at + position / params.page_len];
    let first_word = (page * params.n_heads + head) * params.head_words;
    kept[first_word + position % params.page_len * params.row_words + at_word] = pack(values);
}
