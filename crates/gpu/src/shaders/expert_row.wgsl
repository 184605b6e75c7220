// Where rows of experts lie in a buffer of weights.

const NOWHERE: u32 = 0xffffffffu;

// Which rows of the matrix of all experts a buffer has, and which an expert's product is made of.
struct ExpertRows {
    // Those that the buffer has: the first's number, how many, and the place of the first.
    first_here: u32,
    n_here: u32,
    first_in_buffer: u32,
    // Where the first expert's rows begin in the matrix, and from one expert's to the next one's.
    first_row: u32,
    stride: u32,
    // Where the notes have, for each expert, the row of the buffer at which it begins; NOWHERE if rows lie in it as in the
    // matrix.
    places_at: u32,
}

// The row among those that the buffer has; not below their number if it lacks it.
fn row_here(rows: ExpertRows, expert: u32, row: u32) -> u32 {
    if rows.places_at == NOWHERE {
        // Below the first one here this is a large number.
        return rows.first_row + expert * rows.stride + row - rows.first_here;
    }
    let first = notes[rows.places_at + expert];
    return select(first + rows.first_row + row, NOWHERE, first == NOWHERE);
}
