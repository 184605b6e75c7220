//! Which tensors stay in memory, where not all of them can.

use std::collections::HashMap;

/// Where a tensor's bytes are while the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In memory, all the time.
    Resident,
    /// In the file. Swapped in a chunk at a time, whenever it is used.
    Streamed,
    /// In the file. The rows that are asked for are read one by one.
    ByRow,
}

impl Placement {
    /// Lower-case name, as tables and logs show it.
    pub const fn name(self) -> &'static str {
        match self {
            Placement::Resident => "resident",
            Placement::Streamed => "streamed",
            Placement::ByRow => "by row",
        }
    }
}

/// What a matrix is used for, as far as its placement depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Of a layer: used in every pass.
    Layer(usize),
    /// Of a layer's experts: a part is used in every pass.
    Experts(usize),
    /// The output head: used where logits are wanted.
    Head,
    /// The token embedding alone: a row a token.
    Embedding,
}

/// Chooses for each matrix, given with its bytes, so that the resident ones take at most `capacity`.
///
/// Any byte that is not resident costs the same to read, so it matters little which they are, but for two things.
/// Reading goes on while resident matrices are used, as far as there are slots; so what stays is spread evenly, first
/// a matrix of each layer, then another of each. And of a layer's experts a part is used at a time, so all else comes
/// before them. The order in which matrices become resident does not depend on the capacity: with more, none is lost.
pub(crate) fn place(matrices: &[(Role, u64)], capacity: u64) -> Vec<Placement> {
    let n_layers = matrices.iter().map(|(role, _)| layer_of(*role).map_or(0, |layer| layer + 1)).max();
    let mut n_seen: HashMap<Role, usize> = HashMap::new();
    let rank = |(role, _): &(Role, u64)| {
        let class = match role {
            Role::Layer(_) => 0,
            Role::Head => 1,
            Role::Experts(_) => 2,
            Role::Embedding => 3,
        };
        let nth = n_seen.entry(*role).or_default();
        *nth += 1;
        (class, *nth, layer_of(*role).map(|layer| spread(layer, n_layers.unwrap_or(0))))
    };
    let ranks: Vec<_> = matrices.iter().map(rank).collect();
    let mut order: Vec<usize> = (0..matrices.len()).collect();
    order.sort_by_key(|&i| ranks[i]);
    let mut placements: Vec<Placement> = matrices
        .iter()
        .map(|(role, _)| if *role == Role::Embedding { Placement::ByRow } else { Placement::Streamed })
        .collect();
    let mut left = capacity;
    for i in order {
        let Some(rest) = left.checked_sub(matrices[i].1) else { break };
        (placements[i], left) = (Placement::Resident, rest);
    }
    placements
}

fn layer_of(role: Role) -> Option<usize> {
    match role {
        Role::Layer(layer) | Role::Experts(layer) => Some(layer),
        Role::Head | Role::Embedding => None,
    }
}

/// The place of a layer in an order of which every beginning is spread evenly: its number with the bits reversed
/// (van der Corput 1935).
fn spread(layer: usize, n_layers: usize) -> usize {
    let n_bits = n_layers.next_power_of_two().trailing_zeros();
    layer.reverse_bits().checked_shr(usize::BITS - n_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrices(n_layers: usize) -> Vec<(Role, u64)> {
        let mut matrices = vec![(Role::Embedding, 50)];
        matrices
            .extend((0..n_layers).flat_map(|layer| [(Role::Layer(layer), 7), (Role::Experts(layer), 20)]));
        matrices.push((Role::Head, 50));
        matrices
    }

    #[test]
    fn more_room_never_costs_a_resident_matrix_and_is_never_exceeded() {
        let matrices = matrices(13);
        let total: u64 = matrices.iter().map(|(_, bytes)| bytes).sum();
        let mut before = vec![false; matrices.len()];
        for capacity in 0..=total {
            let resident: Vec<bool> =
                place(&matrices, capacity).into_iter().map(|place| place == Placement::Resident).collect();
            let bytes: u64 = matrices.iter().zip(&resident).filter(|(_, r)| **r).map(|((_, b), _)| b).sum();
            assert!(bytes <= capacity);
            assert!(before.iter().zip(&resident).all(|(before, now)| now >= before), "at {capacity}");
            before = resident;
        }
        assert!(before.iter().all(|resident| *resident));
    }

    #[test]
    fn what_stays_is_spread_over_the_model() {
        // Two of each layer.
        let matrices: Vec<_> = (0..32).map(|i| (Role::Layer(i / 2), 1)).collect();
        let resident = |capacity| -> Vec<usize> {
            let places = place(&matrices, capacity).into_iter().enumerate();
            places.filter(|(_, place)| *place == Placement::Resident).map(|(i, _)| i).collect()
        };
        assert_eq!(resident(4), [0, 8, 16, 24]);
        assert_eq!(resident(16), (0..16).map(|layer| 2 * layer).collect::<Vec<_>>());
        assert_eq!(resident(18), [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 20, 22, 24, 26, 28, 30]);
    }

    #[test]
    fn what_no_room_is_left_for_is_read_as_it_is_used() {
        let places = place(&matrices(2), 14);
        use Placement::{ByRow, Resident, Streamed};
        assert_eq!(places, [ByRow, Resident, Streamed, Resident, Streamed, Streamed]);
    }
}
