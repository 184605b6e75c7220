// Scales of keys and values, one for each block of 32 numbers: in a page they follow the numbers of all positions of a head,
// `[block][position]` in half precision. Two adjacent positions, of which the first is even, have theirs in one word.

const BLOCK_LEN: u32 = 32u;
const BLOCK_WORDS: u32 = BLOCK_LEN / IN_WORD;

// Where in a head the scale of a block is, given its place in the page.
fn scale_at(page_len: u32, row_words: u32, block: u32, place: u32) -> u32 {
    return page_len * row_words + (block * page_len + place) / 2u;
}

// The scale that is in a word for a position.
fn scale_in(word: u32, place: u32) -> f32 {
    return unpack2x16float(word)[place % 2u];
}
